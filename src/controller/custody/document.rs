//! The stored form of a custody, and older ones that are still read.

use super::{Custody, WebhookRecord, WebhookState};
use serde::Deserialize;
use uuid::Uuid;

/// What a custody said of its webhook while there could be only one.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
enum SingleWebhook {
    #[default]
    None,
    Creating,
    Registered {
        id: String,
    },
}

/// A custody as it is stored, by this version or an older one.
#[derive(Deserialize)]
struct Document {
    #[serde(flatten)]
    custody: Custody,
    #[serde(default)]
    webhook: SingleWebhook,
}

/// Reads a custody.
///
/// # Errors
/// It is not JSON, or a field is missing or wrong. The error names no value.
pub fn parse(json: &[u8]) -> Result<Custody, serde_json::Error> {
    let Document { mut custody, webhook } = serde_json::from_slice(json)?;
    let state = match webhook {
        SingleWebhook::None => return Ok(custody),
        SingleWebhook::Creating => WebhookState::Creating,
        SingleWebhook::Registered { id } => WebhookState::Registered { id },
    };
    if custody.webhooks.is_empty() {
        // The attempt names a record for as long as it is there, so it must be the same at each reading.
        custody.webhooks.push(WebhookRecord { attempt: Uuid::nil(), state, ..WebhookRecord::creating(None) });
    }
    Ok(custody)
}
