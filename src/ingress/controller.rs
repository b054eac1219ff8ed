//! What the ingress may not do itself and asks the controller for: pages of an authorization, captured secrets, statuses.

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use std::time::Duration;
use tower::ServiceExt;

/// The longest time that an answer is waited for.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 1024 * 1024;

/// Why the controller has not answered.
#[derive(Debug, thiserror::Error)]
#[error("the controller cannot be reached: {0}")]
pub struct Unreachable(String);

/// How the controller is reached.
#[derive(Clone)]
pub enum Controller {
    /// It is in this process.
    Here(Router),
    /// There is none.
    Absent,
}

impl Controller {
    /// Asks the controller; paths are those of its internal listener.
    ///
    /// # Errors
    /// It is not there, does not answer within 30 seconds, or answers with more than 1 MiB.
    pub async fn call(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Unreachable> {
        let router = match self {
            Controller::Here(router) => router.clone(),
            Controller::Absent => return Err(Unreachable("there is none".to_owned())),
        };
        let answer = async {
            let response = match router.oneshot(request.map(Body::from)).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            let (parts, body) = response.into_parts();
            let body =
                Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| Unreachable(error.to_string()))?;
            Ok(Response::from_parts(parts, body.to_bytes()))
        };
        let timeout = |_| Err(Unreachable(format!("no answer within {TIMEOUT:?}")));
        tokio::time::timeout(TIMEOUT, answer).await.unwrap_or_else(timeout)
    }
}
