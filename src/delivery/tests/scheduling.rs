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
    fn workspace(&self, delivery: &PendingDelivery) -> Arc<str> {
        self.workspaces[&delivery.key.trigger].clone()
    }

    async fn attempt(&self, delivery: PendingDelivery) -> After {
        if self.workspaces[&delivery.key.trigger].starts_with("slow") {
            self.slow.notified().await;
        }
        if self.workspaces[&delivery.key.trigger].starts_with("broken") && delivery.attempts == 0 {
            panic!("a defect");
        }
        self.ended.lock().unwrap().push((delivery.key, delivery.attempts));
        if delivery.attempts < self.failures {
            return After::Again(PendingDelivery {
                attempts: delivery.attempts + 1,
                due_at: now_millis() + 20,
                ..delivery
            });
        }
        After::Ended
    }

    async fn requeued(&self) -> PendingDelivery {
        std::future::pending().await
    }
}

fn pending(n: u128, trigger: u128) -> PendingDelivery {
    let key = DeliveryKey { request: Uuid::from_u128(n), item: 0, trigger: Uuid::from_u128(trigger) };
    PendingDelivery { key, subscription: Uuid::nil(), received_at: 0, attempts: 0, due_at: 0 }
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

#[tokio::test]
async fn a_defect_in_an_attempt_frees_its_slot() {
    let workspaces = HashMap::from([(Uuid::from_u128(0), "broken".into()), (Uuid::from_u128(1), "quick".into())]);
    let fake = Arc::new(Fake { workspaces, slow: Notify::new(), ended: Mutex::default(), failures: 0 });
    let (deliveries, taken) = mpsc::channel(10);
    let end = CancellationToken::new();
    let one = Limits { total: 1, workspace: 1, trigger: 1 };
    let running = tokio::spawn(Scheduler::new(fake.clone(), one).run(taken, end.clone()));
    deliveries.send(pending(1, 0)).await.unwrap();
    deliveries.send(pending(2, 1)).await.unwrap();
    until(|| fake.ended.lock().unwrap().len() == 1).await;
    end.cancel();
    running.await.unwrap();
}
