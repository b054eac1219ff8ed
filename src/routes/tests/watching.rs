//! The watches, against an API server that only pretends.

use super::*;
use crate::watch::Scope;
use http::{Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Lists that are answered by path; what is watched never changes, and the first calls fail.
#[derive(Default)]
struct ApiServer {
    lists: HashMap<&'static str, Value>,
    outages: AtomicUsize,
    /// Watches end with "too old" while this is set, so that everything is listed again.
    expired: AtomicUsize,
}

impl ApiServer {
    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let respond = |status: StatusCode, json: Value| {
            Response::builder().status(status).body(Body::from(json.to_string().into_bytes())).unwrap()
        };
        let down = |left: usize| left.checked_sub(1);
        if self.outages.fetch_update(Ordering::Relaxed, Ordering::Relaxed, down).is_ok() {
            return respond(StatusCode::INTERNAL_SERVER_ERROR, json!({"message": "down"}));
        }
        let query = request.uri().query().unwrap_or_default();
        if query.contains("watch=true") {
            if self.expired.fetch_update(Ordering::Relaxed, Ordering::Relaxed, down).is_ok() {
                let status = json!({"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"});
                return respond(StatusCode::OK, json!({"type": "ERROR", "object": status}));
            }
            std::future::pending::<()>().await;
        }
        let items = self.lists.get(request.uri().path()).unwrap_or_else(|| panic!("{}", request.uri()));
        if request.uri().path().ends_with("/secrets") {
            assert!(query.contains("labelSelector=bellhop.dev%2Fpublished"), "{query}");
        }
        respond(StatusCode::OK, json!({"metadata": {"resourceVersion": "1"}, "items": items}))
    }
}

fn object(kind: &str, name: &str, n: u128, spec: Value) -> Value {
    json!({
        "apiVersion": "bellhop.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "team-a", "uid": Uuid::from_u128(n)},
        "spec": spec,
    })
}

fn client(server: Arc<ApiServer>) -> Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let server = server.clone();
        async move { Ok::<_, std::convert::Infallible>(server.answer(request).await) }
    });
    Client::new(service, "default")
}

#[tokio::test]
async fn everything_is_listed_in_spite_of_outages_and_of_objects_that_cannot_be_decoded() {
    let plugin = object("TriggerPlugin", "forge", 100, serde_json::to_value(plugin_spec()).unwrap());
    let good = trigger(1, "sub-1");
    let good = object("WorkflowTrigger", "trigger-1", 1001, serde_json::to_value(&good.spec).unwrap());
    let mut unreadable = published(3).to_secret("bellhop-ingress");
    unreadable.data = None;
    let mut misnamed = published(4).to_secret("bellhop-ingress");
    misnamed.metadata.name = Some(PublishedRoute::secret_name(Uuid::from_u128(1)) + "-x");
    let runner = |n: u128| {
        crate::api::PublishedRunner::new(Uuid::from_u128(n), "team-a", "trigger-1", &trigger(1, "sub-1").spec.runner)
    };
    let mut unreadable_runner = runner(3).to_secret("bellhop-ingress");
    unreadable_runner.data = None;
    let server = Arc::new(ApiServer {
        lists: HashMap::from([
            (
                "/apis/bellhop.dev/v1alpha1/triggerplugins",
                json!([object("TriggerPlugin", "odd", 101, json!({"displayName": 7})), plugin]),
            ),
            (
                "/apis/bellhop.dev/v1alpha1/workflowtriggers",
                json!([object("WorkflowTrigger", "odd", 1002, json!("not even an object")), good]),
            ),
            (
                "/api/v1/namespaces/bellhop-ingress/secrets",
                json!([
                    published(1).to_secret("bellhop-ingress"),
                    unreadable,
                    misnamed,
                    runner(1001).to_secret("bellhop-ingress"),
                    unreadable_runner,
                ]),
            ),
        ]),
        outages: AtomicUsize::new(3),
        expired: AtomicUsize::new(1),
    });
    let handle = handle();
    // Known from before, and deleted while nobody watched.
    handle.update(|index| {
        index.apply_route(published(2));
        index.apply_trigger(trigger(2, "sub-1"));
        index.apply_runner(runner(1002));
    });
    let watching = {
        let handle = handle.clone();
        tokio::spawn(async move { watch(client(server), &Scope::new(&[]), "bellhop-ingress", handle).await })
    };
    tokio::time::timeout(Duration::from_secs(30), handle.synced()).await.expect("synced");
    assert!(handle.serves(&published(1).version()));
    assert_eq!(rule_names(&handle, 1), ["trigger-1"]);
    assert!(matches!(handle.by_uid(Uuid::from_u128(2)), Lookup::Gone));
    assert!(handle.by_token("token-3").is_none() && handle.by_token("token-4").is_none());
    let known = handle.target(Uuid::from_u128(1001)).unwrap();
    assert!(known.secrets.is_some_and(|secrets| secrets.is_for(&known.trigger.spec.runner)));
    handle.update(|index| index.apply_trigger(trigger(2, "sub-1")));
    assert!(handle.target(Uuid::from_u128(1002)).unwrap().secrets.is_none(), "taken back while nobody watched");
    assert!(!watching.is_finished());
    watching.abort();
}
