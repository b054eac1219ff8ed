//! Answers that the plugin has a say in: a runner's, where one comes in time, else the plugin's own.

use super::answer;
use super::waiting::{Format, NoAnswer, RunnerAnswer, Ticket};
use super::{State, now_millis};
use crate::plugin::CallbackReply;
use crate::routes::Route;
use crate::spool::{Answered, Spool};
use crate::telemetry::Answer;
use axum::response::Response;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How one request is going to be answered once it is stored.
pub struct Reply {
    default: CallbackReply,
    wait: Wait,
}

/// Whether its sender waits for a runner.
enum Wait {
    /// The plugin does not say so, or no trigger wants it.
    No,
    /// Too many do.
    Full,
    /// Until this time after the head of the request.
    Until(Duration, Ticket),
}

impl Reply {
    /// Lets the sender of a request, which will be stored by this id, wait if the plugin says so. To be asked before it is
    /// stored: from then on it may be matched.
    pub fn plan(state: &State, route: &Route, id: Uuid, default: CallbackReply) -> Self {
        let answers = || route.rules().iter().any(|rule| rule.trigger.spec.delivery.answer);
        let wait = match default.deadline.filter(|_| answers()) {
            None => Wait::No,
            Some(deadline) => match state.waiting.enter(id, route.uid()) {
                Some(ticket) => Wait::Until(deadline, ticket),
                None => Wait::Full,
            },
        };
        Self { default, wait }
    }

    /// The HTTP status of the plugin's own answer.
    pub fn status(&self) -> u16 {
        self.default.status
    }

    /// The answer to a request that was stored before: whoever was to answer it has done so, or will not.
    pub fn again(self) -> Response {
        answer::written(self.default.status, self.default.headers, self.default.body)
    }

    /// Waits for what comes first, and notes in the log how the request was answered. `started` is when its head was there.
    /// If this is dropped before it ends, the sender has gone away, and that is noted.
    pub async fn answer(self, spool: &Spool, id: Uuid, started: Instant) -> (Answer, Response) {
        let Self { default, wait } = self;
        let note = Note { spool, id, started, noted: false };
        let (told, why) = match wait {
            Wait::No => (None, None),
            Wait::Full => (None, Some(NoAnswer::Full)),
            Wait::Until(deadline, ticket) => match ticket.wait((started + deadline).into()).await {
                Ok(answer) => (Some(answer), None),
                Err(why) => (None, Some(why)),
            },
        };
        match told {
            Some(RunnerAnswer { trigger, format, body }) => {
                note.set(Answer::Answered, 200, Some(trigger), None);
                (Answer::Answered, answer::handed_on(format, body))
            }
            None => {
                let CallbackReply { status, headers, body, .. } = default;
                note.set(Answer::Default, status, None, why.map(|why| why.to_string()));
                (Answer::Default, answer::written(status, headers, body))
            }
        }
    }
}

/// What the log is told of an answer, at the latest when nobody is there any more to be answered.
struct Note<'a> {
    spool: &'a Spool,
    id: Uuid,
    started: Instant,
    noted: bool,
}

/// Stands for "no answer" in the log: the sender closed the connection (nginx's number for it).
const CLOSED: u16 = 499;

impl Note<'_> {
    fn set(mut self, how: Answer, status: u16, trigger: Option<String>, note: Option<String>) {
        self.noted = true;
        self.write(format!("{how:?}"), status, trigger, note);
    }

    fn write(&self, reason: String, status: u16, trigger: Option<String>, note: Option<String>) {
        let after = self.started.elapsed().as_millis().try_into().unwrap_or(u32::MAX);
        self.spool.note_answer(self.id, Answered { status, after, reason, trigger, note }, now_millis());
    }
}

impl Drop for Note<'_> {
    fn drop(&mut self) {
        if !self.noted {
            let note = "the sender went away before it was answered".to_owned();
            self.write("Closed".to_owned(), CLOSED, None, Some(note));
        }
    }
}

impl Format {
    fn content_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Text => "text/plain; charset=utf-8",
        }
    }
}

impl From<Format> for http::HeaderValue {
    fn from(format: Format) -> Self {
        Self::from_static(format.content_type())
    }
}
