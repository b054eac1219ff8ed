//! Work on threads that may be blocked, so much of it at a time.

use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};

/// Does the work when it is its turn. The turn ends with the work, also if nobody waits for it any more: such work is not
/// stopped.
///
/// # Errors
/// The work has panicked.
pub async fn in_turn<T: Send + 'static>(
    turns: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    // Fails only if it is closed, which it never is.
    let turn = turns.clone().acquire_owned().await;
    spawn_blocking(move || {
        let _turn = turn;
        work()
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[tokio::test]
    async fn work_that_nobody_waits_for_any_more_keeps_its_turn() {
        let turns = Arc::new(Semaphore::new(1));
        let (began, begun) = tokio::sync::oneshot::channel();
        let (end, ended) = mpsc::channel::<()>();
        let first = turns.clone();
        let handler = tokio::spawn(async move {
            in_turn(&first, move || {
                let _ = began.send(());
                let _ = ended.recv();
            })
            .await
        });
        begun.await.unwrap();
        handler.abort();
        assert!(handler.await.is_err());
        let mut second = std::pin::pin!(in_turn(&turns, || 2));
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut second).await.is_err(), "the first goes on");
        end.send(()).unwrap();
        assert_eq!(second.await.unwrap(), 2);
    }
}
