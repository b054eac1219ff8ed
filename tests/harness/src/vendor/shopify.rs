//! Shopify: GraphQL with `userErrors` at the status 200, and one webhook for each topic.
//!
//! Facts: shopify.dev/docs/api/admin-graphql/latest/mutations/webhookSubscriptionCreate and
//! .../mutations/webhookSubscriptionDelete (one topic each; `userErrors`), .../queries/webhookSubscriptions,
//! shopify.dev/docs/apps/build/webhooks/subscribe/https (headers and signature).
//!
//! Instead of: Shopify signs with the secret of the app, which nobody sends to it. Here, a key may come with a webhook, in
//! the field `signingKey` that Shopify does not have. The query's text is not interpreted.

use super::asked::text;
use super::{Answer, Asked, Delivery, Desk, Vendor, Webhook, answer_json};
use crate::server::Reply;
use serde_json::{Value, json};
use std::sync::Arc;

/// The access token that is accepted.
pub const TOKEN: &str = "shpat_standin-token-of-acme";

/// The secret of the app, which signs unless a webhook brings a key.
pub const APP_SECRET: &str = "shpss_standin-secret-of-acme";

/// The topics that exist here.
const TOPICS: [&str; 3] = ["ORDERS_CREATE", "ORDERS_PAID", "PRODUCTS_UPDATE"];

/// Shopify with one shop.
#[derive(Debug, Default)]
pub struct Shopify;

fn data(data: Value) -> Reply {
    answer_json(200, &json!({"data": data, "extensions": {"cost": {"requestedQueryCost": 10}}}))
}

/// The topic as headers and the older API write it: `orders/create`.
fn slashed(topic: &str) -> String {
    topic.to_ascii_lowercase().replacen('_', "/", 1)
}

impl Vendor for Shopify {
    fn answer(&self, desk: &Arc<Desk>, asked: &Asked) -> Answer {
        if asked.header("x-shopify-access-token") != TOKEN {
            let words = "[API] Invalid API key or access token (unrecognized login or wrong password)";
            return answer_json(401, &json!({"errors": words})).into();
        }
        match (asked.method.as_str(), asked.segments().as_slice()) {
            ("POST", ["admin", "api", _, "graphql.json"]) => {}
            _ => return Reply::status(404).into(),
        }
        let (body, query) = (asked.json(), text(&asked.json()["query"]));
        let variables = &body["variables"];
        if query.contains("webhookSubscriptionCreate") {
            data(json!({"webhookSubscriptionCreate": create(desk, variables)}))
        } else if query.contains("webhookSubscriptionDelete") {
            let id = text(&variables["id"]);
            let errors = match desk.remove(&id) {
                true => json!([]),
                false => json!([{"field": ["id"], "message": "Webhook subscription does not exist"}]),
            };
            data(json!({"webhookSubscriptionDelete": {"deletedWebhookSubscriptionId": id, "userErrors": errors}}))
        } else if query.contains("webhookSubscriptions") {
            let nodes: Vec<Value> = desk.all().iter().map(show).collect();
            data(json!({"webhookSubscriptions": {"nodes": nodes, "pageInfo": {"hasNextPage": false}}}))
        } else if query.contains("shop") {
            data(json!({"shop": {"name": "acme"}}))
        } else {
            answer_json(200, &json!({"errors": [{"message": "Parse error"}]}))
        }
        .into()
    }

    fn delivery(&self, webhook: &Webhook, event: &str, number: u64) -> Delivery {
        Delivery::json(&webhook.url, &json!({"id": number, "name": format!("#{number}")}))
            .header("x-shopify-topic", slashed(event))
            .header("x-shopify-webhook-id", format!("delivery-{number}"))
            .signed_base64("x-shopify-hmac-sha256", "", &webhook.secret)
    }
}

fn show(webhook: &Webhook) -> Value {
    json!({
        "id": webhook.id,
        "topic": webhook.events.first(),
        "uri": webhook.url,
        "endpoint": {"__typename": "WebhookHttpEndpoint", "callbackUrl": webhook.url},
    })
}

fn create(desk: &Desk, variables: &Value) -> Value {
    let (topic, input) = (text(&variables["topic"]), &variables["webhookSubscription"]);
    // The field is called so since 2025-10.
    let url = if input["uri"].is_string() { text(&input["uri"]) } else { text(&input["callbackUrl"]) };
    let key = if input["signingKey"].is_string() { text(&input["signingKey"]) } else { APP_SECRET.to_owned() };
    let refused = |field: &str, message: &str| json!({"webhookSubscription": null, "userErrors": [{"field": [field], "message": message}]});
    if !TOPICS.contains(&topic.as_str()) {
        return refused("topic", "Topic is invalid");
    }
    if desk.all().iter().any(|webhook| webhook.url == url && webhook.events == [topic.clone()]) {
        return refused("callbackUrl", "Address for this topic has already been taken");
    }
    let webhook =
        Webhook::new(format!("gid://shopify/WebhookSubscription/{}", desk.number()), url).events([topic]).secret(key);
    desk.add(webhook.clone());
    json!({"webhookSubscription": show(&webhook), "userErrors": []})
}
