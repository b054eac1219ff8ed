//! Properties of everything that reads what strangers send, tried with requests that nobody has thought of.
//!
//! Three kinds: nothing panics, whatever comes; what an independent signer has made is accepted, and refused with one byte
//! changed anywhere or with another key; what is malformed is refused. What finds a failure is made as small as it gets, and
//! its seed is kept in `regressions/`, from where it is tried first from then on.
//!
//! Each target runs for some seconds, or for `BELLHOP_FUZZ_SECONDS`; `make fuzz` sets it.

mod addresses;
mod bodies;
mod handshakes;
mod jwt;
mod schemes;
mod signatures;

use bellhop::api::TriggerPluginSpec;
use bellhop::plugin::{CallbackRequest, Plugin, Secret, join};
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, TestCaseError, TestError, TestRunner};
use serde_json::{Value, json};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// How long a target runs in `make test`.
const SECONDS: u64 = 7;
/// Cases between two looks at the clock.
const CASES: u32 = 64;

/// Tries a property with new cases until the time is up.
fn hold<S: Strategy>(regressions: &'static str, cases: &S, property: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let seconds = std::env::var("BELLHOP_FUZZ_SECONDS").ok().map(|text| text.parse().expect("a number of seconds"));
    let (began, limit) = (Instant::now(), Duration::from_secs(seconds.unwrap_or(SECONDS)));
    let config = Config {
        cases: CASES,
        max_shrink_iters: 20_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(regressions))),
        ..Config::default()
    };
    let tried = Cell::new(0_u64);
    while began.elapsed() < limit {
        // A runner that has had its cases has no further ones.
        let before = tried.get();
        let count = |case| {
            tried.set(tried.get() + 1);
            property(case)
        };
        match TestRunner::new(config.clone()).run(cases, count) {
            Ok(()) => assert!(tried.get() >= before + u64::from(CASES), "cases were not tried"),
            Err(TestError::Fail(why, case)) => {
                panic!("{why}; the smallest case is {case:?}; its seed is in {regressions}")
            }
            Err(TestError::Abort(why)) => panic!("no cases could be made: {why}"),
        }
    }
    println!("{} cases in {:.0} s", tried.get(), began.elapsed().as_secs_f64());
}

/// A request at a callback URL.
#[derive(Clone, Debug, Default, PartialEq)]
struct Sent {
    query: String,
    headers: Vec<(&'static str, Vec<u8>)>,
    body: Vec<u8>,
}

/// The callback URL that was registered.
const URL: &str = "https://hooks.example.com/hooks/x";

impl Sent {
    fn header_map(&self) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in &self.headers {
            // What is no header's value never gets here: the HTTP server refuses it.
            if let Ok(value) = HeaderValue::from_bytes(value) {
                map.append(HeaderName::from_static(name), value);
            }
        }
        map
    }

    /// What `ask` finds out about the request, as it arrives at `at` (Unix milliseconds).
    fn ask<T>(&self, at: i64, ask: impl FnOnce(&CallbackRequest<'_>) -> T) -> T {
        let map = self.header_map();
        ask(&CallbackRequest::new("POST", &self.query, &map, &self.body).at(at).registered(Some(URL)))
    }

    fn is_accepted(&self, plugin: &Plugin, at: i64, secret: &str) -> bool {
        self.is_accepted_with(plugin, at, &[secret])
    }

    /// The same while there are several secrets, as during a rotation.
    fn is_accepted_with(&self, plugin: &Plugin, at: i64, secrets: &[&str]) -> bool {
        let secrets: Vec<_> = secrets.iter().map(|secret| Secret::from(*secret)).collect();
        self.ask(at, |request| plugin.verify(request, &secrets)).is_ok()
    }
}

/// A plugin with this `callback`.
fn plugin(mut callback: Value) -> Plugin {
    let fields = callback.as_object_mut().expect("an object");
    fields.entry("event").or_insert(json!("'push'"));
    fields.entry("verification").or_insert(json!([{"none": {}}]));
    let spec = json!({
        "displayName": "Fuzz",
        "allowedOrigins": ["https://api.example.com"],
        "callback": callback,
        "events": [{"name": "push", "title": "Push", "variables": {"body": {"type": "object", "value": "body"}}}],
    });
    let spec: TriggerPluginSpec = serde_json::from_value(spec).expect("the spec");
    Plugin::compile("fuzz", &spec).unwrap_or_else(|mistakes| panic!("{}", join(&mistakes)))
}

/// Bytes that a header may have.
fn header_bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![8 => 0x20_u8..0x7f, 1 => 0x80_u8..=0xff, 1 => Just(b'\t')], 0..120)
}
