//! A bounded load on the service. It runs in another process, so that its memory is not counted.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};

/// The load. Each connection sends one request after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) connections: usize,
    /// The bytes of an average request. The sizes range from a half to three halves of this.
    pub(crate) bytes: u64,
    /// The time for which the service holds the bytes.
    pub(crate) hold_ms: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    pub(crate) served: u64,
    pub(crate) refused: u64,
}

/// The longest wait for one answer: beyond the service's own deadline.
const PATIENCE: Duration = Duration::from_secs(20);

impl Load {
    pub(crate) async fn run(self, address: SocketAddr, time: Duration) -> io::Result<Done> {
        let end = Instant::now() + time;
        let tasks: Vec<_> = (0..self.connections)
            .map(|at| tokio::spawn(self.connection(address, at as u64, end)))
            .collect();
        let mut sum = Done::default();
        for task in tasks {
            let done = task.await.map_err(io::Error::other)??;
            sum.served += done.served;
            sum.refused += done.refused;
        }
        Ok(sum)
    }

    async fn connection(self, address: SocketAddr, at: u64, end: Instant) -> io::Result<Done> {
        let mut stream = BufReader::new(TcpStream::connect(address).await?);
        let mut random = at.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut done = Done::default();
        let mut line = String::new();
        let mut body = Vec::new();
        while Instant::now() < end {
            // Xorshift (Marsaglia, 2003).
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let bytes = self.bytes / 2 + random % self.bytes;
            let key = (random >> 32) % 20_000;
            let text = format!(
                "GET /work?tenant={at}&bytes={bytes}&hold={}&key={key} HTTP/1.1\r\nHost: x\r\n\r\n",
                self.hold_ms,
            );
            stream.get_mut().write_all(text.as_bytes()).await?;
            let answer = read_answer(&mut stream, &mut line, &mut body);
            // A connection that is never accepted ends with the load.
            let Ok(status) = timeout(PATIENCE, answer).await else { return Ok(done) };
            match status? {
                200 => done.served += 1,
                503 => done.refused += 1,
                other => return Err(io::Error::other(format!("status {other}"))),
            }
        }
        Ok(done)
    }
}

async fn read_answer(
    stream: &mut BufReader<TcpStream>,
    line: &mut String,
    body: &mut Vec<u8>,
) -> io::Result<u16> {
    let (mut status, mut length) = (0, 0);
    loop {
        line.clear();
        if stream.read_line(line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let text = line.trim_end().to_ascii_lowercase();
        if text.is_empty() {
            break;
        }
        if let Some(value) = text.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        } else if let Some(rest) = text.strip_prefix("http/1.1 ") {
            status = rest.get(..3).and_then(|code| code.parse().ok()).unwrap_or(0);
        }
    }
    body.resize(length, 0);
    stream.read_exact(body).await?;
    Ok(status)
}
