//! Deliveries to a runner that is well, beside runners with every fault: how much longer they take than without those. Each
//! event goes to all of them, and each round has a run of its own without them.

use super::arrivals::{Runner, Since};
use super::beside::{self, Found};
use super::push::Request;
use super::report::Report;
use super::servers::Started;
use super::{FEW, ROUNDS};
use anyhow::{Context, Result};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::http::header::{LOCATION, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use bellhop_harness::ports::free_port;
use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

/// Bytes of an answer that is larger than anybody needs.
const LARGE: usize = 100_000_000;

/// What a runner does instead of working.
#[derive(Clone, Copy)]
enum Fault {
    Hangs,
    Drips,
    Fails,
    IsBusy,
    IsLarge,
    Redirects,
    SpeaksNoTls,
}

const FAULTS: [Fault; 7] =
    [Fault::Hangs, Fault::Drips, Fault::Fails, Fault::IsBusy, Fault::IsLarge, Fault::Redirects, Fault::SpeaksNoTls];

impl Fault {
    async fn answer(self) -> Response {
        match self {
            Self::Hangs => std::future::pending().await,
            Self::Drips => Body::from_stream(blocks(usize::MAX, 1, Duration::from_millis(100))).into_response(),
            Self::Fails => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            Self::IsBusy => (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, "3")]).into_response(),
            Self::IsLarge => Body::from_stream(blocks(LARGE / 65_536, 65_536, Duration::ZERO)).into_response(),
            Self::Redirects => (StatusCode::FOUND, [(LOCATION, "http://127.0.0.2/")]).into_response(),
            Self::SpeaksNoTls => StatusCode::OK.into_response(),
        }
    }

    fn scheme(self) -> &'static str {
        match self {
            Self::SpeaksNoTls => "https",
            _ => "http",
        }
    }
}

/// A body of so many blocks of so many bytes, with a pause before each.
fn blocks(count: usize, bytes: usize, pause: Duration) -> impl futures::Stream<Item = Result<Bytes, Infallible>> {
    let block = Bytes::from(vec![b'.'; bytes]);
    futures::stream::unfold(count, move |left| {
        let block = block.clone();
        async move {
            tokio::time::sleep(pause).await;
            Some((Ok(block), left.checked_sub(1)?))
        }
    })
}

/// Starts a runner with each fault, on one thread that ends with the process, and gives their URLs. One more refuses every
/// connection.
fn start() -> Result<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut urls = vec![format!("http://127.0.0.1:{}/runs", free_port()?)];
    for fault in FAULTS {
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
        urls.push(format!("{}://{}/runs", fault.scheme(), listener.local_addr()?));
        let router = Router::new().fallback(async move |_: Bytes| fault.answer().await);
        runtime.spawn(async { axum::serve(listener, router).await });
    }
    std::thread::Builder::new()
        .name("faulty-runners".to_owned())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))
        .context("the thread of the faulty runners")?;
    Ok(urls)
}

/// Measures with and without faulty runners in turn, five rounds.
pub async fn measure(folder: &Path, request: &Request, runner: &Runner, report: &mut Report) -> Result<()> {
    let faulty = tokio::task::spawn_blocking(start).await??;
    let (mut alone, mut beside) = (Found::default(), Found::default());
    for round in 0..ROUNDS {
        for (faulty, found) in [(&[][..], &mut alone), (&faulty, &mut beside)] {
            let server = Started::beside(folder, FEW, &runner.url, faulty).await?;
            found.run(&server, request, runner, Since::Answer).await?;
        }
        println!(
            "faulty runners, round {} of {ROUNDS}: p99 {:.2} ms without, {:.2} ms with {}",
            round + 1,
            alone.p99.last(),
            beside.p99.last(),
            faulty.len()
        );
    }
    report.fact("faulty_runners", faulty.len());
    beside::report(
        report,
        &alone,
        &beside,
        &[
            ("faulty_alone_p50_ms", "100 requests/s: from answer to runner, p50, ms"),
            ("faulty_alone_p99_ms", "100 requests/s: from answer to runner, p99, ms"),
            ("faulty_beside_p50_ms", "the same beside 8 faulty runners, p50, ms"),
            ("faulty_beside_p99_ms", "the same beside 8 faulty runners, p99, ms"),
            ("faulty_p50_ratio", "beside faulty runners ÷ without, p50"),
            ("faulty_p99_ratio", "beside faulty runners ÷ without, p99"),
        ],
    );
    Ok(())
}
