//! Listing webhooks, page by page.

use super::Plugin;
use super::call::{Call, HttpCall};
use super::captures::{Found, filled, texts};
use super::cel::value::from_json;
use super::cel::{Expression, Variables};
use super::context::{CallContext, Given};
use super::error::{CallError, EvalError};
use super::response::HttpResponse;
use super::webhook::{end, of};
use serde_json::Value;
use url::Url;

/// Most webhooks that one answer may list.
const MOST_WEBHOOKS: usize = 10_000;
/// Longest cursor, in bytes.
const LONGEST_CURSOR: usize = 4096;

/// Compiled `spec.webhook.find`.
#[derive(Debug)]
pub(crate) struct Find {
    pub(crate) call: Call,
    pub(crate) pagination: Option<Pagination>,
    pub(crate) items: Expression,
    pub(crate) matches: Expression,
    pub(crate) id: Expression,
    pub(crate) healthy: Option<Expression>,
    pub(crate) expires_at: Option<Expression>,
    pub(crate) values: Vec<(String, Expression)>,
}

/// Compiled `spec.webhook.find.pagination`.
#[derive(Debug)]
pub(crate) struct Pagination {
    pub(crate) first: Option<i64>,
    pub(crate) next: Next,
}

/// What gives the next page.
#[derive(Debug)]
pub(crate) enum Next {
    /// `page` for the next call.
    Value(Expression),
    /// The next call's URL.
    Url(Expression),
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    /// The first.
    First,
    /// The one that a number or a cursor names.
    Value(Value),
    /// The one that is at this URL.
    Url(Url),
}

impl Find {
    /// `page` in expressions and in the URL.
    fn value(&self, page: &Page) -> Value {
        match page {
            Page::Value(value) => value.clone(),
            Page::First | Page::Url(_) => {
                self.pagination.as_ref().and_then(|pagination| pagination.first).map_or(Value::Null, Value::from)
            }
        }
    }
}

impl Plugin {
    /// Whether webhooks can be listed.
    pub fn can_find(&self) -> bool {
        self.calls.find.is_some()
    }

    /// The call that lists a page of webhooks; nothing if the external system cannot.
    ///
    /// # Errors
    /// The call cannot be made; see [`CallError`]. A page's URL must be of an allowed origin and of the origin of the
    /// first page.
    pub fn find_call(&self, context: &CallContext<'_>, page: &Page) -> Result<Option<HttpCall>, CallError> {
        let Some(find) = &self.calls.find else { return Ok(None) };
        let mut call = self.make_page(&find.call, context, &find.value(page))?;
        if let Page::Url(url) = page {
            if url.origin() != call.url.origin() {
                return Err(CallError::OriginNotAllowed {
                    field: "spec.webhook.find.pagination.nextURL".to_owned(),
                    origin: url.origin().ascii_serialization(),
                    allowed: vec![call.url.origin().ascii_serialization()],
                });
            }
            call.url = url.clone();
        }
        Ok(Some(call))
    }

    /// The webhooks in the answer to [`Plugin::find_call`] that are the Subscription's.
    ///
    /// # Errors
    /// Whatever is not as expected: the status, a list that is none, a match that is no boolean, an id that is no
    /// string. None of it means that there is no webhook.
    pub fn found(&self, context: &CallContext<'_>, response: &HttpResponse) -> Result<Vec<Found>, CallError> {
        let find = self.calls.find.as_ref().ok_or(CallError::NoSuchCall("webhook.find"))?;
        let data = response.successful(find.call.success.as_ref())?;
        let given = Given::new(context, false);
        let read = || -> Result<Vec<Found>, EvalError> {
            let mut found = Vec::new();
            for item in &find.items.list(&Variables::default().with("response", &data), MOST_WEBHOOKS)? {
                let variables = given.variables().with("item", item);
                if find.matches.boolean(&variables)? {
                    found.push(Found {
                        id: filled(&find.id, &variables)?,
                        expires_at: end(find.expires_at.as_ref(), &variables)?,
                        values: texts(&find.values, &variables)?,
                        healthy: find.healthy.as_ref().map_or(Ok(true), |healthy| healthy.boolean(&variables))?,
                    });
                }
            }
            Ok(found)
        };
        read().map_err(|error| of(response, &error))
    }

    /// The page after `page`, whose call went to `asked`; nothing if it was the last. How many pages are read at most is
    /// for the caller to say.
    ///
    /// # Errors
    /// The answer is no success, the next page is of no use or of another origin, or it is the same page again.
    pub fn next_page(
        &self,
        context: &CallContext<'_>,
        asked: &Url,
        page: &Page,
        response: &HttpResponse,
    ) -> Result<Option<Page>, CallError> {
        let find = self.calls.find.as_ref().ok_or(CallError::NoSuchCall("webhook.find"))?;
        let Some(pagination) = &find.pagination else { return Ok(None) };
        let data = response.successful(find.call.success.as_ref())?;
        let current = find.value(page);
        let current_data = from_json(&current);
        let given = Given::new(context, false);
        let variables = given.variables().with("response", &data).with("page", &current_data);
        let (expression, next) = match &pagination.next {
            Next::Value(expression) | Next::Url(expression) => (expression, expression.json(&variables)),
        };
        let fail = |problem: &str| response.unexpected(format!("{} {problem}", expression.field()));
        let next = match next.map_err(|error| of(response, &error))? {
            Value::Null => return Ok(None),
            Value::String(text) if text.is_empty() => return Ok(None),
            Value::String(text) if text.len() > LONGEST_CURSOR => return Err(fail("gives more than 4096 bytes")),
            next @ (Value::String(_) | Value::Number(_)) => next,
            _ => return Err(fail("gives neither a number nor a string nor null")),
        };
        let page = match (&pagination.next, next) {
            (Next::Value(_), next) => {
                if next == current {
                    return Err(fail("gives the page that was just read"));
                }
                Page::Value(next)
            }
            (Next::Url(_), Value::String(text)) => {
                let url = asked.join(&text).map_err(|_| fail("gives no URL"))?;
                if url.origin() != asked.origin() || !url.username().is_empty() || url.password().is_some() {
                    let origin = url.origin().ascii_serialization();
                    return Err(fail(&format!("leads from {} to {origin}", asked.origin().ascii_serialization())));
                }
                if url == *asked {
                    return Err(fail("gives the page that was just read"));
                }
                Page::Url(url)
            }
            (Next::Url(_), _) => return Err(fail("gives a number, not a URL")),
        };
        Ok(Some(page))
    }
}
