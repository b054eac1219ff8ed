//! `/oauth/…`: the pages of an authorization. The controller makes them; the ingress passes on what a browser sends and
//! what it gets, and knows neither clients nor tokens.
//!
//! Addresses of these pages hold links and codes, so none is ever logged.

use super::Controller;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{
    ACCEPT_LANGUAGE, ALLOW, CACHE_CONTROL, CONTENT_LANGUAGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, LOCATION,
    ORIGIN, REFERRER_POLICY, RETRY_AFTER, SET_COOKIE, USER_AGENT, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::{BodyExt, Limited};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// What the pages take of a request's headers.
const IN: [HeaderName; 5] = [COOKIE, ORIGIN, CONTENT_TYPE, USER_AGENT, ACCEPT_LANGUAGE];
/// What a browser gets of an answer's headers.
const OUT: [HeaderName; 11] = [
    SET_COOKIE,
    LOCATION,
    CONTENT_TYPE,
    CONTENT_LANGUAGE,
    CONTENT_SECURITY_POLICY,
    CACHE_CONTROL,
    REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
    RETRY_AFTER,
    ALLOW,
];
/// The largest body of a form, in bytes.
const MAX_BODY: usize = 16 * 1024;
/// How long a form may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Pages that are made at the same time; people wait, programs are told to come back.
const AT_ONCE: usize = 64;

/// Passes the pages on.
#[derive(Clone)]
pub struct Relay {
    controller: Controller,
    slots: Arc<Semaphore>,
}

impl Relay {
    /// The pages that this controller makes.
    pub fn new(controller: Controller) -> Self {
        Self { controller, slots: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Passes one request on.
    pub async fn pass(&self, request: Request) -> Response {
        let Ok(_slot) = self.slots.try_acquire() else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "Too many pages are asked for; try again in a moment.\n");
        };
        let (parts, body) = request.into_parts();
        let body = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await;
        let body = match body {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) => return plain(StatusCode::PAYLOAD_TOO_LARGE, "The form is too large, or broke off.\n"),
            Err(_) => return plain(StatusCode::REQUEST_TIMEOUT, "The form took too long.\n"),
        };
        // The path and the query alone: where the controller is reached is not for a browser to say.
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut passed = http::Request::new(body);
        *passed.method_mut() = parts.method;
        match path.parse() {
            Ok(uri) => *passed.uri_mut() = uri,
            Err(_) => return plain(StatusCode::BAD_REQUEST, "This is no address.\n"),
        }
        copy(&parts.headers, passed.headers_mut(), &IN);
        match self.controller.call(passed).await {
            Ok(answer) => {
                let (parts, body) = answer.into_parts();
                let mut response = Response::new(Body::from(body));
                *response.status_mut() = parts.status;
                copy(&parts.headers, response.headers_mut(), &OUT);
                response
            }
            Err(error) => {
                tracing::warn!(%error, "a page of an authorization cannot be served");
                plain(StatusCode::SERVICE_UNAVAILABLE, "Bellhop's controller does not answer; try again in a minute.\n")
            }
        }
    }
}

fn copy(from: &HeaderMap, to: &mut HeaderMap, names: &[HeaderName]) {
    for name in names {
        for value in from.get_all(name) {
            to.append(name, value.clone());
        }
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;

    /// A controller that says what it got.
    fn relay() -> Relay {
        let echo = async |request: Request| {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let text = format!("{} {} {:?} {}", parts.method, parts.uri, parts.headers, body.len());
            let mut response = Response::new(Body::from(text));
            for (name, value) in [("set-cookie", "a=b"), ("set-cookie", "c=d"), ("x-internal", "no"), ("server", "s")] {
                response.headers_mut().append(name, HeaderValue::from_static(value));
            }
            response
        };
        Relay::new(Controller::Here(Router::new().fallback(echo)))
    }

    async fn text(response: Response) -> String {
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn only_what_the_pages_need_is_passed_on() {
        let request = Request::builder()
            .method("POST")
            .uri("http://elsewhere.example.com/oauth/callback?code=x%20y&state=z")
            .header("cookie", "a=b")
            .header("origin", "https://hooks.example.com")
            .header("authorization", "Bearer stolen")
            .header("x-forwarded-for", "1.2.3.4")
            .header("host", "elsewhere.example.com")
            .body(Body::from("12345"))
            .unwrap();
        let response = relay().pass(request).await;
        let headers = response.headers();
        assert_eq!(headers.get_all("set-cookie").iter().count(), 2);
        assert!(!headers.contains_key("x-internal") && !headers.contains_key("server"));
        let seen = text(response).await;
        assert!(seen.starts_with("POST /oauth/callback?code=x%20y&state=z {") && seen.ends_with(" 5"), "{seen}");
        assert!(seen.contains("cookie") && seen.contains("origin"), "{seen}");
        assert!(!seen.contains("stolen") && !seen.contains("forwarded") && !seen.contains("elsewhere"), "{seen}");
    }

    #[tokio::test]
    async fn large_forms_and_an_absent_controller_are_told() {
        let post = |size| Request::builder().method("POST").uri("/oauth/x").body(Body::from(vec![b'x'; size])).unwrap();
        assert_eq!(relay().pass(post(MAX_BODY)).await.status(), StatusCode::OK);
        assert_eq!(relay().pass(post(MAX_BODY + 1)).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
        let absent = Relay::new(Controller::Absent).pass(post(1)).await;
        assert_eq!(absent.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(absent.headers().contains_key(RETRY_AFTER));
    }
}
