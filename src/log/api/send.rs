//! Sends a request that a person makes up to a Subscription, by one replica of the ingress.

use super::list::{PLAIN, words};
use super::question::Target;
use super::replicas::Replicas;
use super::status::Refusal;
use super::{GROUP, VERSION};
use crate::log::sending::{SendSpec, SendWish, Sent};
use bytes::Bytes;
use http::{Method, StatusCode};
use percent_encoding::utf8_percent_encode;
use serde_json::{Value, json};
use std::time::Duration;

/// The largest `Send` that is read, in bytes: less than an ingress reads, which also gets who wishes it.
pub const MAX_BODY: usize = crate::ingress::WISH - 64 * 1024;
/// How long a replica may take until its answer begins, and then to its end; both are less than a connection may wait.
const PATIENCE: Duration = Duration::from_secs(12);

/// Has the first replica that is ready take the request, for `user`, and gives the `Send` with its status. A replica that does
/// not know the Subscription (yet) is not the last word.
///
/// # Errors
/// 404: no replica serves such a Subscription. 400: the wish is wrong. 409: the request was refused; the message says why.
/// 503: no replica takes it now.
pub async fn send(replicas: &Replicas, target: &Target, spec: SendSpec, user: &str) -> Result<Value, Refusal> {
    let Target { namespace, name } = target;
    let wish = SendWish { spec: spec.clone(), by: user.to_owned() };
    let body = Bytes::from(serde_json::to_vec(&wish).expect("texts are JSON"));
    let plain = |part: &str| utf8_percent_encode(part, PLAIN).to_string();
    let path = format!("/log/{}/subscriptions/{}/send", plain(namespace), plain(name));
    let mut last = Refusal::unavailable("no replica of the ingress is there to take it").about(name);
    for replica in replicas.all().into_iter().filter(super::replicas::Replica::can_be_asked) {
        let number = &replica.number;
        // Whether it has taken the request is not known then, so that no other is asked.
        let lost = |why: String| {
            let why =
                format!("replica {number} of the ingress has not answered; the log says whether it took it: {why}");
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why).about(name)
        };
        let answer = replica.ask(Method::POST, &path, body.clone(), PATIENCE).await.map_err(lost)?;
        let status = answer.status;
        let body = answer.whole(PATIENCE).await.map_err(lost)?;
        match status {
            StatusCode::OK => {
                let sent: Sent = serde_json::from_slice(&body).map_err(|_| lost("its answer is not one".to_owned()))?;
                return Ok(json!({
                    "kind": "Send", "apiVersion": format!("{GROUP}/{VERSION}"),
                    "metadata": {"name": name, "namespace": namespace}, "spec": spec, "status": sent,
                }));
            }
            StatusCode::NOT_FOUND => {
                let why = "no replica of the ingress serves it; its conditions say whether there is one, and whether it is Ready";
                last = Refusal::new(status, format!("Subscription \"{name}\" not found: {why}")).about(name);
            }
            StatusCode::BAD_REQUEST | StatusCode::CONFLICT => {
                return Err(Refusal::new(status, words(&body)).about(name));
            }
            status => {
                last = Refusal::unavailable(format!(
                    "replica {number} of the ingress does not take it ({status}): {}",
                    words(&body)
                ))
                .about(name)
            }
        }
    }
    Err(last)
}
