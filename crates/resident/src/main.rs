//! A service under a process limit of 64 MiB, and the load that tries to make it larger.
//!
//! ```text
//! resident run small|large SECONDS [off]   one load; the peak of the service's resident memory
//! resident rest SECONDS                    processor time of the monitor's threads while nothing happens
//! resident serve [off]                     the service alone; prints its port
//! ```
//!
//! Exits with 1 where the peak of `run` was more than 1.05 of the limit, or `rest` took more than 1 %
//! of a core.

mod heap;
mod load;
mod service;

use load::Load;
use std::{
    env,
    error::Error,
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

const SMALL: Load = Load { connections: 64, bytes: 64 << 10, hold_ms: 0 };
const LARGE: Load = Load { connections: 512, bytes: 256 << 10, hold_ms: 100 };

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The service, in a process of its own that ends when this is dropped.
struct Served {
    child: Child,
    address: SocketAddr,
}

impl Served {
    fn start(keeps_limit: bool) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.arg("serve").args((!keeps_limit).then_some("off"));
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let out = child.stdout.take().ok_or("no output")?;
        BufReader::new(out).read_line(&mut line)?;
        let address = SocketAddr::from(([127, 0, 0, 1], line.trim().parse()?));
        Ok(Self { child, address })
    }

    /// The largest resident memory of the service so far, by the kernel.
    fn peak(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib: u64 = peak.ok_or("no VmHWM")?.trim().trim_end_matches(" kB").parse()?;
        Ok(kib << 10)
    }

    /// The processor time of the threads whose name begins with `memory `.
    fn monitor_time(&self) -> Result<Duration> {
        let mut nanos = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let path = task?.path();
            if fs::read_to_string(path.join("comm"))?.starts_with("memory ") {
                let stat = fs::read_to_string(path.join("schedstat"))?;
                let first = stat.split_whitespace().next().ok_or("no schedstat")?;
                nanos += first.parse::<u64>()?;
            }
        }
        Ok(Duration::from_nanos(nanos))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn run(name: &str, time: Duration, keeps_limit: bool) -> Result<bool> {
    let load = match name {
        "small" => SMALL,
        "large" => LARGE,
        other => return Err(format!("load `{other}`: small or large").into()),
    };
    let served = Served::start(keeps_limit)?;
    let done = load.run(served.address, time).await?;
    let (peak, cost) = (served.peak()?, served.monitor_time()?);
    let is_kept = peak * 100 <= service::LIMIT as u64 * 105;
    println!(
        "{:<9} {name:<6} {:<4} {:>7.1} {:>9.0} {:>8} {:>8.2}  {}",
        heap::NAME,
        if keeps_limit { "on" } else { "off" },
        peak as f64 / f64::from(1 << 20),
        done.served as f64 / time.as_secs_f64(),
        done.refused,
        cost.as_secs_f64() / time.as_secs_f64() * 100.0,
        if is_kept { "kept" } else { "NOT KEPT" },
    );
    Ok(is_kept || !keeps_limit)
}

async fn rest(time: Duration) -> Result<bool> {
    let served = Served::start(true)?;
    // The caches are full, and from here on nothing happens.
    SMALL.run(served.address, Duration::from_secs(2)).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = served.monitor_time()?;
    tokio::time::sleep(time).await;
    let cost = (served.monitor_time()? - before).as_secs_f64() / time.as_secs_f64() * 100.0;
    println!("{:<9} at rest: {cost:.2} % of a core", heap::NAME);
    Ok(cost <= 1.0)
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let seconds = |text: &str| text.parse().map(Duration::from_secs);
    let is_kept = match args[..] {
        ["serve"] => service::serve(true).await.map(|()| true)?,
        ["serve", "off"] => service::serve(false).await.map(|()| true)?,
        ["run", load, time] => run(load, seconds(time)?, true).await?,
        ["run", load, time, "off"] => run(load, seconds(time)?, false).await?,
        ["rest", time] => rest(seconds(time)?).await?,
        _ => {
            return Err(
                "usage: resident run small|large SECONDS [off] | rest SECONDS | serve [off]".into(),
            );
        }
    };
    Ok(if is_kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
