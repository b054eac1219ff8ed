//! The calls that make, find, change and remove a webhook, and what their answers mean.

use super::call::{Call, CallContext, HttpCall, HttpResponse, callback};
use super::cel::{Expression, Variables};
use super::error::CallError;
use super::{Find, Plugin};

/// Most webhooks that one answer may list.
const MOST_WEBHOOKS: usize = 10_000;

impl Plugin {
    fn make(&self, call: &Call, context: &CallContext<'_>) -> Result<HttpCall, CallError> {
        call.make(context, &self.origins, self.api_key.as_ref())
    }

    /// The call that asks whether the credentials are good; nothing if the plugin has none.
    ///
    /// # Errors
    /// The call cannot be made; see [`CallError`].
    pub fn verify_call(&self, context: &CallContext<'_>) -> Result<Option<HttpCall>, CallError> {
        self.calls.verify.as_ref().map(|(call, _)| self.make(call, context)).transpose()
    }

    /// The account that the answer to [`Plugin::verify_call`] names, for people; nothing if the plugin does not ask.
    ///
    /// # Errors
    /// The status is not 2xx, or the answer has no such name.
    pub fn account(&self, response: &HttpResponse) -> Result<Option<String>, CallError> {
        let data = response.successful()?;
        let Some((_, Some(account))) = &self.calls.verify else { return Ok(None) };
        let variables = Variables::default().with("response", &data);
        account.text(&variables).map(Some).map_err(|error| response.unexpected(error.to_string()))
    }

    /// The call that lists webhooks; nothing if the external system cannot.
    ///
    /// # Errors
    /// The call cannot be made; see [`CallError`].
    pub fn find_call(&self, context: &CallContext<'_>) -> Result<Option<HttpCall>, CallError> {
        self.calls.find.as_ref().map(|find| self.make(&find.call, context)).transpose()
    }

    /// The ids of the webhooks in the answer to [`Plugin::find_call`] that have the Subscription's callback URL.
    ///
    /// # Errors
    /// Whatever is not as expected: the status, a list that is none, a match that is no boolean, an id that is no
    /// string. None of it means that there is no webhook.
    pub fn found(&self, context: &CallContext<'_>, response: &HttpResponse) -> Result<Vec<String>, CallError> {
        let Find { items, matches, id, .. } = self.calls.find.as_ref().ok_or(CallError::NoSuchCall("webhook.find"))?;
        let data = response.successful()?;
        let unexpected = |error: super::EvalError| response.unexpected(error.to_string());
        let listed = items.list(&Variables::default().with("response", &data), MOST_WEBHOOKS).map_err(unexpected)?;
        let callback = callback(context.callback_url, None);
        let parameters = super::cel::value::from_object(context.parameters);
        let mut ids = Vec::new();
        for item in &listed {
            let variables =
                Variables::default().with("item", item).with("callback", &callback).with("parameters", &parameters);
            if matches.boolean(&variables).map_err(unexpected)? {
                ids.push(webhook_id(id, &Variables::default().with("item", item), response)?);
            }
        }
        Ok(ids)
    }

    /// The call that creates the webhook.
    ///
    /// # Errors
    /// The plugin has none, or it cannot be made; see [`CallError`].
    pub fn create_call(&self, context: &CallContext<'_>) -> Result<HttpCall, CallError> {
        let (call, _) = self.calls.create.as_ref().ok_or(CallError::NoSuchCall("webhook.create"))?;
        self.make(call, context)
    }

    /// The id of the webhook that the answer to [`Plugin::create_call`] speaks of.
    ///
    /// # Errors
    /// The status is not 2xx, or there is no id; in the second case a webhook may exist all the same.
    pub fn created(&self, response: &HttpResponse) -> Result<String, CallError> {
        let (_, id) = self.calls.create.as_ref().ok_or(CallError::NoSuchCall("webhook.create"))?;
        let data = response.successful()?;
        webhook_id(id, &Variables::default().with("response", &data), response)
    }

    /// The call that rewrites the webhook in place; nothing if the plugin has none, and then a webhook that needs a
    /// change is deleted and created again.
    ///
    /// # Errors
    /// The call cannot be made; see [`CallError`].
    pub fn update_call(&self, context: &CallContext<'_>) -> Result<Option<HttpCall>, CallError> {
        self.calls.update.as_ref().map(|call| self.make(call, context)).transpose()
    }

    /// The call that deletes the webhook; nothing if the plugin has none.
    ///
    /// # Errors
    /// The call cannot be made; see [`CallError`].
    pub fn delete_call(&self, context: &CallContext<'_>) -> Result<Option<HttpCall>, CallError> {
        self.calls.delete.as_ref().map(|call| self.make(call, context)).transpose()
    }
}

fn webhook_id(id: &Expression, variables: &Variables<'_>, response: &HttpResponse) -> Result<String, CallError> {
    let id = id.text(variables).map_err(|error| response.unexpected(error.to_string()))?;
    if id.is_empty() { Err(response.unexpected("the webhook's id is empty")) } else { Ok(id) }
}
