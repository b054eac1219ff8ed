//! `spec.callback`.

use super::super::answer::{Answering, WrittenAnswer};
use super::super::cel::{Expression, Scope};
use super::super::handshake::{Handshake, HandshakeHmac};
use super::super::verification::{self, Verifier};
use super::super::{Callback, Mistake};
use super::{Compiler, Taken, request_scope};
use crate::api;
use ipnet::IpNet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// How long a sender may have to wait for a runner. Who waits longer than the longest has given up.
const DEADLINES: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(10);

impl verification::Compile for Compiler<'_> {
    fn expression(&mut self, field: &str, source: &str, scope: &Scope) -> Expression {
        Compiler::expression(self, field, source, scope)
    }

    fn mistake(&mut self, mistake: Mistake) {
        self.mistakes.push(mistake);
    }
}

impl Compiler<'_> {
    pub(super) fn callback(&mut self, callback: &api::Callback) -> Callback {
        if callback.verification.is_empty() {
            self.mistake("spec.callback.verification", "is empty; no check at all must be written as `none: {}`");
        }
        let (request, mut verifiers) = (request_scope(), Vec::new());
        for (at, verification) in callback.verification.iter().enumerate() {
            let field = format!("spec.callback.verification[{at}]");
            verifiers.push(Verifier::compile(&field, verification, &request, self));
        }
        if verifiers.len() > 1
            && let Some(at) = verifiers.iter().position(Verifier::is_none)
        {
            let problem =
                "lets in whoever has none of the other proofs, so that they prove nothing; leave it or them out";
            self.mistake(format!("spec.callback.verification[{at}].none"), problem);
        }
        let item = self.item_scope();
        if callback.item_id.is_some() && callback.items.is_none() {
            let problem = "a request carries one event; write `deliveryID`, or `items` beside it";
            self.mistake("spec.callback.itemID", problem);
        }
        let handshakes = callback.handshakes.iter().enumerate();
        let from = callback.from.iter().enumerate();
        Callback {
            from: from.filter_map(|(at, text)| self.network(&format!("spec.callback.from[{at}]"), text)).collect(),
            verification: verifiers,
            handshakes: handshakes.map(|(at, handshake)| self.handshake(at, handshake)).collect(),
            payload_field: callback.form_payload_field.clone(),
            ping: self.optional("spec.callback.ping", callback.ping.as_ref(), &request),
            items: self.optional("spec.callback.items", callback.items.as_ref(), &request),
            event: self.expression("spec.callback.event", &callback.event, &item),
            item_id: self.optional("spec.callback.itemID", callback.item_id.as_ref(), &item),
            delivery_id: self.optional("spec.callback.deliveryID", callback.delivery_id.as_ref(), &request),
            answer: callback.answer.as_ref().map(|answer| self.answering(answer)),
        }
    }

    fn network(&mut self, field: &str, text: &str) -> Option<IpNet> {
        let single = || text.parse::<IpAddr>().ok().map(IpNet::from);
        let problem = match text.parse::<IpNet>().ok().or_else(single) {
            Some(network) if network == network.trunc() => return Some(network),
            Some(network) => format!("{text} has bits after its prefix; did you mean {}?", network.trunc()),
            None => format!("{text:?} is no network; write something like 54.187.174.0/24 or 2001:db8::/32"),
        };
        self.mistake(field, problem);
        None
    }

    fn handshake(&mut self, at: usize, handshake: &api::Handshake) -> Handshake {
        let field = format!("spec.callback.handshakes[{at}]");
        let request = request_scope();
        let secret = self.optional(&format!("{field}.secret"), handshake.secret.as_ref(), &request);
        if handshake.hmac.is_some() && secret.is_some() {
            let problem =
                "the answer would be signed with a secret that the request brings; leave `hmac` or `secret` out";
            self.mistake(format!("{field}.hmac"), problem);
        }
        let when = self.expression(&format!("{field}.when"), &handshake.when, &request);
        let hmac = handshake.hmac.as_ref().map(|hmac| HandshakeHmac {
            of: self.expression(&format!("{field}.hmac.of"), &hmac.of, &request),
            algorithm: hmac.algorithm,
            key: hmac.key.clone(),
            encoding: hmac.encoding,
        });
        let request = if hmac.is_some() { request.any("hmac") } else { request };
        Handshake {
            when,
            verified: handshake.verified,
            secret: secret.map(|secret| secret.confidential()),
            hmac,
            answer: self.written(&format!("{field}.answer"), &handshake.answer, &request),
        }
    }

    fn answering(&mut self, answer: &api::CallbackAnswer) -> Answering {
        let (field, request) = ("spec.callback.answer", request_scope());
        let deadline = answer.deadline.map(Duration::from);
        if deadline.is_some_and(|deadline| !DEADLINES.contains(&deadline)) {
            self.mistake(format!("{field}.deadline"), "is not from 100ms to 10s");
        }
        Answering {
            when: self.optional(&format!("{field}.when"), answer.when.as_ref(), &request),
            deadline,
            default: self.written(&format!("{field}.default"), &answer.default, &request),
        }
    }

    fn written(&mut self, field: &str, answer: &api::PluginAnswer, scope: &Scope) -> WrittenAnswer {
        if !(200..300).contains(&answer.status) {
            self.mistake(format!("{field}.status"), format!("{} is not from 200 to 299", answer.status));
        }
        if matches!(answer.status, 204 | 205) && answer.body.is_some() {
            let problem = format!("an answer with status {} has no body; leave one of them out", answer.status);
            self.mistake(format!("{field}.body"), problem);
        }
        WrittenAnswer {
            status: answer.status,
            headers: self.headers(&format!("{field}.headers"), &answer.headers, scope, &Taken::default()),
            body: self.optional(&format!("{field}.body"), answer.body.as_ref(), scope),
        }
    }

    /// The scope of what is asked for each event; `item` is there only where requests are lists of events.
    pub(super) fn item_scope(&self) -> Scope {
        if self.spec.callback.items.is_some() { request_scope().any("item") } else { request_scope() }
    }
}
