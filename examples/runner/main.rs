//! A runner for trying Bellhop out: prints every workflow that it is asked to run, and accepts it.
//!
//! ```text
//! cargo run --example runner -- --listen 127.0.0.1:8090
//! ```

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use serde_json::Value;
use std::io::Write;
use std::net::SocketAddr;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let listen: SocketAddr = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => ([127, 0, 0, 1], 8090).into(),
        ["--listen", address] => address.parse()?,
        _ => anyhow::bail!("usage: runner [--listen <address>:<port>]"),
    };
    let listener = tokio::net::TcpListener::bind(listen).await?;
    eprintln!("runner: listening on {}", listener.local_addr()?);
    axum::serve(listener, Router::new().fallback(run)).await?;
    Ok(())
}

async fn run(headers: HeaderMap, body: String) -> StatusCode {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("-").to_owned();
    let Ok(variables) = serde_json::from_str::<Value>(&body) else { return StatusCode::BAD_REQUEST };
    let text = format!(
        "workflow:  {}\ntrigger:   {}/{}\nevent:     {} {}\nvariables: {variables:#}\n\n",
        header("ce-workflow"),
        header("ce-workspace"),
        header("ce-trigger"),
        header("ce-type"),
        header("ce-id"),
    );
    // In one piece, so that requests at the same time do not mix. A closed output is no reason to refuse work.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    StatusCode::ACCEPTED
}
