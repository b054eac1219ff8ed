//! When deliveries are attempted, with attempts that only pretend.

use super::*;
use std::collections::HashMap;
use tokio::sync::Notify;

/// Attempts whose runner is slow for some workspaces.
struct Fake {
    workspaces: HashMap<Uuid, Arc<str>>,
    slow: Notify,
    ended: Mutex<Vec<(DeliveryKey, u32)>>,
    failures: u32,
}

impl Attempts for Fake {
    fn way(&self, delivery: &PendingDelivery) -> Way {
        Way { runner: "".into(), workspace: self.workspaces[&delivery.key.trigger].clone() }
    }

    fn ordered(&self, _: Uuid) -> bool {
        false
    }

    fn behind(&self, _: &PendingDelivery) -> bool {
        false
    }

    async fn moved(&self) {
        std::future::pending().await
    }

    fn circuits(&self, _: usize) {}

    async fn attempt(&self, delivery: PendingDelivery) -> (After, RunnerHealth) {
        if self.workspaces[&delivery.key.trigger].starts_with("slow") {
            self.slow.notified().await;
        }
        if self.workspaces[&delivery.key.trigger].starts_with("broken") && delivery.attempts == 0 {
            panic!("a defect");
        }
        self.ended.lock().unwrap().push((delivery.key, delivery.attempts));
        if delivery.attempts < self.failures {
            let (attempts, due_at) = (delivery.attempts + 1, now_millis() + 20);
            return (After::Again(PendingDelivery { attempts, due_at, ..delivery }), RunnerHealth::Unknown);
        }
        (After::Ended, RunnerHealth::Unknown)
    }

    async fn requeued(&self) -> PendingDelivery {
        std::future::pending().await
    }
}

fn pending(n: u128, trigger: u128) -> PendingDelivery {
    let key = DeliveryKey { request: Uuid::from_u128(n), item: 0, trigger: Uuid::from_u128(trigger) };
    PendingDelivery { key, subscription: Uuid::nil(), number: 0, received_at: 0, attempts: 0, due_at: 0 }
}

#[tokio::test]
async fn slow_runners_hold_up_nobody_else() {
    let mut workspaces = HashMap::from([(Uuid::from_u128(0), "quick".into())]);
    workspaces.extend((1..=40).map(|n| (Uuid::from_u128(n), format!("slow-{}", n / 4).into())));
    let fake = Arc::new(Fake { workspaces, slow: Notify::new(), ended: Mutex::default(), failures: 0 });
    let (deliveries, taken) = mpsc::channel(10_000);
    for n in 0..4000 {
        deliveries.try_send(pending(n, 1 + n % 40)).unwrap();
    }
    let end = CancellationToken::new();
    let running = tokio::spawn(Scheduler::new(fake.clone(), Limits::default()).run(taken, end.clone()));
    tokio::time::sleep(Duration::from_millis(50)).await;
    for n in 5000..5100 {
        deliveries.try_send(pending(n, 0)).unwrap();
    }
    until(|| fake.ended.lock().unwrap().len() == 100).await;
    end.cancel();
    fake.slow.notify_waiters();
    running.await.unwrap();
}

#[tokio::test]
async fn a_delivery_is_attempted_once_at_a_time_and_again_when_due() {
    let workspaces = HashMap::from([(Uuid::from_u128(0), "quick".into())]);
    let fake = Arc::new(Fake { workspaces, slow: Notify::new(), ended: Mutex::default(), failures: 2 });
    let (deliveries, taken) = mpsc::channel(10);
    let mut scheduler = Scheduler::new(fake.clone(), Limits::default());
    scheduler.add(pending(1, 0));
    scheduler.add(pending(1, 0));
    let end = CancellationToken::new();
    let running = tokio::spawn(scheduler.run(taken, end.clone()));
    until(|| fake.ended.lock().unwrap().len() == 3).await;
    let attempts: Vec<u32> = fake.ended.lock().unwrap().iter().map(|(_, attempts)| *attempts).collect();
    assert_eq!(attempts, [0, 1, 2]);
    deliveries.send(pending(1, 0)).await.unwrap();
    until(|| fake.ended.lock().unwrap().len() == 6).await;
    end.cancel();
    running.await.unwrap();
}

/// A runner that never answers, and one that does.
#[derive(Default)]
struct Two {
    dead: Mutex<Vec<DeliveryKey>>,
    well: Mutex<Vec<DeliveryKey>>,
    open: Mutex<Vec<usize>>,
}

impl Attempts for Two {
    fn way(&self, delivery: &PendingDelivery) -> Way {
        let runner = if delivery.key.trigger.as_u128() < 100 { "http://dead" } else { "http://well" };
        Way { runner: runner.into(), workspace: "team-a".into() }
    }

    fn ordered(&self, _: Uuid) -> bool {
        false
    }

    fn behind(&self, _: &PendingDelivery) -> bool {
        false
    }

    async fn moved(&self) {
        std::future::pending().await
    }

    fn circuits(&self, open: usize) {
        self.open.lock().unwrap().push(open);
    }

    async fn attempt(&self, delivery: PendingDelivery) -> (After, RunnerHealth) {
        if delivery.key.trigger.as_u128() >= 100 {
            self.well.lock().unwrap().push(delivery.key);
            return (After::Ended, RunnerHealth::Answers);
        }
        self.dead.lock().unwrap().push(delivery.key);
        let due_at = now_millis() + 5;
        (After::Again(PendingDelivery { attempts: delivery.attempts + 1, due_at, ..delivery }), RunnerHealth::Fails)
    }

    async fn requeued(&self) -> PendingDelivery {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_runner_that_does_not_answer_is_left_alone_and_holds_up_nobody() {
    let two = Arc::new(Two::default());
    let (deliveries, taken) = mpsc::channel(10_000);
    (0..2000).for_each(|n| deliveries.try_send(pending(n, n % 100)).unwrap());
    let end = CancellationToken::new();
    let running = tokio::spawn(Scheduler::new(two.clone(), Limits::default()).run(taken, end.clone()));
    until(|| *two.open.lock().unwrap() == [1]).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let attempts = two.dead.lock().unwrap().len();
    // Those that had begun when the circuit opened, at most as many as one workspace may have at one runner.
    assert!((10..=10 + 32).contains(&attempts), "{attempts}");
    for n in 0..500 {
        deliveries.send(pending(5000 + n, 100 + n % 3)).await.unwrap();
    }
    until(|| two.well.lock().unwrap().len() == 500).await;
    assert_eq!(two.dead.lock().unwrap().len(), attempts, "no attempt is used up while the circuit is open");
    end.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_defect_in_an_attempt_frees_its_slot() {
    let workspaces = HashMap::from([(Uuid::from_u128(0), "broken".into()), (Uuid::from_u128(1), "quick".into())]);
    let fake = Arc::new(Fake { workspaces, slow: Notify::new(), ended: Mutex::default(), failures: 0 });
    let (deliveries, taken) = mpsc::channel(10);
    let end = CancellationToken::new();
    let one = Limits { total: 1, workspace: 1, runner: 1, trigger: 1 };
    let running = tokio::spawn(Scheduler::new(fake.clone(), one).run(taken, end.clone()));
    deliveries.send(pending(1, 0)).await.unwrap();
    deliveries.send(pending(2, 1)).await.unwrap();
    until(|| fake.ended.lock().unwrap().len() == 1).await;
    end.cancel();
    running.await.unwrap();
}
