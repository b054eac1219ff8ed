//! How the controller asks for requests:
//!
//! | Question | Answer |
//! |---|---|
//! | `GET /log/{namespace}/requests` | 200 and a [`Page`](super::model::Page), newest first |
//! | the same with `watch=true` | 200 and a [`Change`](super::model::Change) a line, until somebody ends it |
//! | `GET /log/{namespace}/requests/{uid}` | 200 and the request, or 404 |
//! | `POST /log/{namespace}/requests/{uid}/replay` | 200 and what is pending now, 404, or 409 and why not |
//!
//! The ingress takes requests that a person has sent beside them ([`sent_router`](crate::ingress::sent_router)).
//!
//! What can be asked for is in [`Question`]; lists and watches of all namespaces are asked for with `-` ([`ALL`](super::ALL)) in
//! place of one. Over the network, each question carries the key that the controller has
//! published; who asks in the same process need not prove anything. Whether a person may see a namespace is for the
//! controller to find out.

use super::model::ReplayWish;
use super::{Log, Question, ReplayError};
use crate::api::PublishedController;
use crate::spool::SpoolError;
use axum::body::{Body, Bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::StreamExt;
use http::StatusCode;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use serde_json::json;
use std::convert::Infallible;
use subtle::ConstantTimeEq;
use tokio::sync::watch;
use uuid::Uuid;

/// The largest wish for a replay, in bytes.
const WISH: usize = 16 * 1024;

/// The questions, for who asks in the same process.
pub fn router(log: Log) -> Router {
    Router::new()
        .route("/log/{namespace}/requests", get(requests))
        .route("/log/{namespace}/requests/{uid}", get(request))
        .route("/log/{namespace}/requests/{uid}/replay", post(replay))
        .layer(axum::extract::DefaultBodyLimit::max(WISH))
        .with_state(log)
}

/// These routes, for who proves to be the controller by the key that it has published.
pub fn network(routes: Router, published: watch::Receiver<Option<PublishedController>>) -> Router {
    routes.layer(middleware::from_fn_with_state(published, guard))
}

async fn guard(
    State(published): State<watch::Receiver<Option<PublishedController>>>,
    request: Request,
    next: Next,
) -> Response {
    let shown = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown = shown.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    // An empty key would let everybody in.
    let known = published.borrow().as_ref().map(|published| published.key.clone()).unwrap_or_default();
    match !known.is_empty() && bool::from(known.as_bytes().ct_eq(shown.as_bytes())) {
        true => next.run(request).await,
        false => problem(StatusCode::UNAUTHORIZED, "only the controller may ask here"),
    }
}

async fn requests(
    State(log): State<Log>,
    namespace: Result<Path<String>, PathRejection>,
    question: Result<Query<Question>, QueryRejection>,
) -> Response {
    let Ok(Path(namespace)) = namespace else { return problem(StatusCode::NOT_FOUND, "there is no such page") };
    let question = match question {
        Ok(Query(question)) => question,
        Err(rejection) => return problem(StatusCode::BAD_REQUEST, rejection.body_text()),
    };
    if question.watch {
        let changes = match log.watch(namespace, question) {
            Ok(changes) => changes,
            Err(why) => return problem(StatusCode::SERVICE_UNAVAILABLE, format!("{why}; come back later")),
        };
        let lines = changes.map(|change| {
            let mut line = serde_json::to_vec(&change).unwrap_or_default();
            line.push(b'\n');
            Ok::<_, Infallible>(line)
        });
        return ([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response();
    }
    match log.reading(move |log| log.list(&namespace, &question)).await {
        Ok(page) => Json(page).into_response(),
        Err(error) => failed(&error),
    }
}

async fn request(State(log): State<Log>, path: Result<Path<(String, Uuid)>, PathRejection>) -> Response {
    let Ok(Path((namespace, id))) = path else { return problem(StatusCode::NOT_FOUND, "there is no such request") };
    match log.reading(move |log| log.one(&namespace, id)).await {
        Ok(Some(request)) => Json(request).into_response(),
        Ok(None) => problem(StatusCode::NOT_FOUND, "there is no such request in the log; it may have been too old"),
        Err(error) => failed(&error),
    }
}

async fn replay(State(log): State<Log>, path: Result<Path<(String, Uuid)>, PathRejection>, body: Bytes) -> Response {
    let Ok(Path((namespace, id))) = path else { return problem(StatusCode::NOT_FOUND, "there is no such request") };
    let wish = match body.is_empty() {
        true => Ok(ReplayWish::default()),
        false => serde_json::from_slice(&body),
    };
    let wish = match wish {
        Ok(wish) => wish,
        Err(error) => return problem(StatusCode::BAD_REQUEST, format!("the body is no wish for a replay: {error}")),
    };
    match log.replay(&namespace, id, &wish).await {
        Ok(replayed) => {
            tracing::info!(request = %id, namespace, trigger = wish.trigger, deliveries = replayed.deliveries.len(),
                by = wish.by, "a request is replayed");
            Json(replayed).into_response()
        }
        Err(error @ ReplayError::NotFound) => problem(StatusCode::NOT_FOUND, error.to_string()),
        Err(error @ ReplayError::Conflict(_)) => problem(StatusCode::CONFLICT, error.to_string()),
        Err(ReplayError::Failed(error)) => failed(&error),
    }
}

fn failed(error: &SpoolError) -> Response {
    let status = match error {
        SpoolError::Unknown { .. } => StatusCode::NOT_FOUND,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    problem(status, error.to_string())
}

fn problem(status: StatusCode, why: impl Into<String>) -> Response {
    (status, Json(json!({ "error": why.into() }))).into_response()
}
