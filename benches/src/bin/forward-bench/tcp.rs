//! iperf3 from client to server.

use crate::route::Route;
use anyhow::{Context, Result};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tidegate_benches::inside::read;
use tidegate_benches::scene;

/// The service that the policy allows.
const PORT: &str = "443";

/// A running `iperf3 --server`, ended with this, and by the kernel if this process is killed.
pub struct Server(Child);

impl Server {
    /// Starts one and waits until it listens.
    pub fn start(route: &Route) -> Result<Self> {
        let child = Command::new("nsenter")
            .arg(format!("--net={}", route.server.path()))
            .args(["setpriv", "--pdeathsig", "KILL", "iperf3", "--server", "--port", PORT])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting nsenter (package util-linux)")?;
        let server = Self(child);
        let until = Instant::now() + Duration::from_secs(10);
        while !route.server.run(listens)? {
            anyhow::ensure!(
                Instant::now() < until,
                "iperf3 does not listen (`cargo xtask setup` installs it)"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended if this fails.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether something listens on the port in this network namespace.
fn listens() -> Result<bool> {
    Ok(!read("ss", &["--no-header", "--listening", "--tcp", &format!("sport = :{PORT}")])?.trim().is_empty())
}

/// A second of TCP: what the server has received, in Gbit/s.
pub fn gigabits(route: &Route) -> Result<f64> {
    let namespace = format!("--net={}", route.client.path());
    let server = scene::SERVER.0.to_string();
    let words = [&namespace, "iperf3", "--client", &server, "--port", PORT, "--time", "1", "--json"];
    let text = read("nsenter", &words)?;
    let json: serde_json::Value = serde_json::from_str(&text).context("what iperf3 prints")?;
    let bits = json["end"]["sum_received"]["bits_per_second"].as_f64();
    Ok(bits.context("iperf3 names no rate")? / 1e9)
}
