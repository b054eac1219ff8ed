//! Waiting for something to become true.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// Polls `check` until it gives a value, and fails with its last error when `timeout` has passed.
///
/// ```
/// # async fn example() -> anyhow::Result<()> {
/// use bellhop_harness::eventually;
/// use std::time::Duration;
/// let three = eventually(Duration::from_secs(1), "the answer", async || Ok(3)).await?;
/// # Ok(()) }
/// ```
pub async fn eventually<T, F>(timeout: Duration, what: &str, mut check: F) -> Result<T>
where
    F: AsyncFnMut() -> Result<T>,
{
    let started = Instant::now();
    let mut pause = Duration::from_millis(10);
    let mut tries = 0;
    let mut last = None;
    loop {
        tries += 1;
        let left = timeout.saturating_sub(started.elapsed());
        match tokio::time::timeout(left.max(Duration::from_millis(100)), check()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => last = Some(error),
            Err(_) => last = Some(last.unwrap_or_else(|| anyhow!("the check itself did not end"))),
        }
        if started.elapsed() + pause >= timeout {
            let last = last.unwrap_or_else(|| anyhow!("nothing"));
            return Err(last.context(format!("{what}: not within {timeout:?} ({tries} tries); the last one said")));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}
