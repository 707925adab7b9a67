//! A small service over HTTP that keeps a process limit.
//!
//! Four tenants and a cache share one ledger. A connection is charged when it is accepted. A request reserves
//! its bytes, waits for them up to a deadline, and fills a buffer of that size.

use crate::heap;
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
    serve::Listener,
};
use bytes::Bytes;
use nebula_memory::{
    Budget, MemoryError, Reservation, Watermarks, cache::Cache, integration::monitoring::Monitor,
};
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream},
};

/// The process's limit.
pub(crate) const LIMIT: usize = 64 << 20;

/// The memory of a connection before its request is admitted: the task, its read buffer, the socket.
const CONNECTION: usize = 45 << 10;

const TENANTS: usize = 4;

/// The longest wait for memory.
const DEADLINE: Duration = Duration::from_secs(5);

/// Many more workers than connections: every connection may be at work.
const WORKERS: u32 = 1 << 16;

struct Service {
    tenants: Vec<Budget>,
    cache: Cache<u32, Arc<[u8]>>,
}

/// The bytes of an answer, with their reservation.
struct Held {
    bytes: Vec<u8>,
    _charged: Reservation,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Serves until the process is killed. Prints the port.
pub(crate) async fn serve(keeps_limit: bool) -> Result<(), Box<dyn std::error::Error>> {
    let root = Budget::root("process").limit(LIMIT).workers(WORKERS).build()?;
    let monitor = Monitor::new(&root, Watermarks::default());
    let _thread = if keeps_limit {
        let monitor = match heap::PURGE {
            Some(purge) => monitor.with_process_limit().with_purge(purge),
            None => monitor.with_process_limit(),
        };
        Some(Arc::new(monitor).spawn()?)
    } else {
        None
    };
    let connections = root.child("connections").workers(WORKERS).build()?;
    let tenants = (0..TENANTS)
        .map(|at| root.child(&format!("tenant-{at}")).workers(WORKERS).build())
        .collect::<Result<_, MemoryError>>()?;
    let cache = Cache::options("answers")
        .budget(&root)
        .max_bytes(LIMIT)
        .weigher(|_: &u32, value: &Arc<[u8]>| value.len() + 32)
        .build()?;
    let service = Arc::new(Service { tenants, cache });
    let app = Router::new().route("/work", get(work)).with_state(service);
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    // Room for connections that wait to be accepted, for want of memory.
    let listener = socket.listen(1024)?;
    println!("{}", listener.local_addr()?.port());
    axum::serve(Charging { listener, connections }, app).await?;
    Ok(())
}

/// `/work?tenant=T&bytes=N&hold=MS&key=K`
async fn work(State(service): State<Arc<Service>>, request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let figure = |name: &str| {
        let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        value.and_then(|value| value.parse::<u64>().ok()).unwrap_or(0)
    };
    let bytes = usize::try_from(figure("bytes")).unwrap_or(usize::MAX);
    let tenant = &service.tenants[figure("tenant") as usize % TENANTS];
    let Ok(charged) = tenant.reserve(bytes).timeout(DEADLINE).await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let key = figure("key") as u32;
    let seed = service.cache.get_or_insert_with(&key, || {
        let len = 512 + key as usize * 7919 % 8192;
        Ok::<_, std::convert::Infallible>(vec![key as u8; len].into())
    });
    let byte = seed.map_or(0, |seed| seed[0]);
    let buffer = vec![byte | 1; bytes];
    let hold = figure("hold");
    if hold > 0 {
        // The request is only about the buffer; its answer is short.
        tokio::time::sleep(Duration::from_millis(hold)).await;
        let sum: u64 = buffer.iter().step_by(4096).map(|&byte| u64::from(byte)).sum();
        drop((buffer, charged));
        return sum.to_string().into_response();
    }
    Response::new(Body::from(Bytes::from_owner(Held { bytes: buffer, _charged: charged })))
}

/// Accepts a connection once its memory is reserved.
struct Charging {
    listener: TcpListener,
    connections: Budget,
}

impl Listener for Charging {
    type Io = Charged;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Charged, SocketAddr) {
        loop {
            let reserved = self.connections.reserve(CONNECTION).timeout(DEADLINE).await;
            let Ok(charged) = reserved else { continue };
            match self.listener.accept().await {
                Ok((stream, address)) => return (Charged { stream, _charged: charged }, address),
                // No descriptors are left, or the peer has gone.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection with the memory that it is charged.
struct Charged {
    stream: TcpStream,
    _charged: Reservation,
}

impl AsyncRead for Charged {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Charged {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
