// Reads {"now": seconds} and writes requests that the vendors' own libraries have signed; where a library only verifies, Node.js
// has signed after the vendor's page, and `verify.mjs` asks the library. `covered` are the headers that the signature covers
// besides the body; `method` and `url` are there where it covers them.
import { createHmac, generateKeyPairSync, sign as signWithKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { Signature as HubSpot } from "@hubspot/api-client";
import { sign } from "@octokit/webhooks-methods";
import { Webhook as StandardWebhook } from "standardwebhooks";
import { Webhook as SvixWebhook } from "svix";
import Stripe from "stripe";
import twilio from "twilio";

const { now } = JSON.parse(readFileSync(0, "utf8"));
const date = new Date(now * 1000);
const json = { "content-type": "application/json" };
const requests = [];
const hmac = (secret, text, encoding) => createHmac("sha256", secret).update(text).digest(encoding);

{
  const secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
  const body = JSON.stringify({ type: "invoice.paid", timestamp: date.toISOString(), data: { id: "é" } });
  const library = new StandardWebhook(secret);
  requests.push({
    plugin: "standard-webhooks", library: "standardwebhooks", secret, body, signature: "webhook-signature",
    covered: ["webhook-id", "webhook-timestamp"],
    headers: {
      ...json, "webhook-id": "msg_1", "webhook-timestamp": String(now), "webhook-signature": library.sign("msg_1", date, body),
    },
  });
  const svix = new SvixWebhook(secret);
  requests.push({
    plugin: "standard-webhooks", library: "svix", secret, body, signature: "svix-signature",
    covered: ["svix-id", "svix-timestamp"],
    headers: { ...json, "svix-id": "msg_2", "svix-timestamp": String(now), "svix-signature": svix.sign("msg_2", date, body) },
  });
}

{
  const secret = "whsec_5WbX5kEWLlfzsGNjH64I8lOOqUB6e8FH";
  const body = JSON.stringify({ id: "evt_1", object: "event", type: "charge.succeeded", data: { object: { amount: 5 } } });
  const header = Stripe.webhooks.generateTestHeaderString({ payload: body, secret, timestamp: now });
  requests.push({
    plugin: "stripe", library: "stripe", secret, body, signature: "stripe-signature",
    headers: { ...json, "stripe-signature": header },
  });
}

{
  const secret = "12345678901234567890123456789012";
  const url = "https://hooks.example.com/hooks/0123456789abcdef";
  const fields = { MessageSid: "SM1", From: "+14158675309", To: "+15005550006", Body: "Grüße & = + ?", NumMedia: "0" };
  const body = new URLSearchParams(fields).toString();
  const header = twilio.getExpectedTwilioSignature(secret, `${url}?a=b%20c`, fields);
  requests.push({
    plugin: "twilio", library: "twilio", secret, body, url, query: "a=b%20c", signature: "x-twilio-signature",
    headers: { "content-type": "application/x-www-form-urlencoded", "x-twilio-signature": header },
  });
}

{
  const secret = "octo-S3cret";
  const body = JSON.stringify({ event: "push", ref: "refs/heads/main" });
  requests.push({
    plugin: "generic-hmac", library: "@octokit/webhooks-methods", secret, body, signature: "x-hub-signature-256",
    headers: { ...json, "x-hub-signature-256": await sign(secret, body) },
  });
}

{
  const secret = "octo-S3cret";
  const body = JSON.stringify({ ref: "refs/heads/main", sender: { login: "ada" } });
  requests.push({
    plugin: "github", library: "@octokit/webhooks-methods", secret, body, signature: "x-hub-signature-256",
    headers: {
      ...json, "x-github-event": "push", "x-github-delivery": "1", "x-hub-signature-256": await sign(secret, body),
    },
  });
}

{
  // A webhook that was made by hand with a signing token.
  const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
  const body = JSON.stringify({ object_kind: "push", ref: "refs/heads/main" });
  const headers = {
    ...json, "x-gitlab-event": "Push Hook", "webhook-id": "msg_3", "webhook-timestamp": String(now),
    "webhook-signature": new StandardWebhook(secret).sign("msg_3", date, body),
  };
  requests.push({
    plugin: "gitlab", library: "standardwebhooks", secret, body, signature: "webhook-signature",
    covered: ["webhook-id", "webhook-timestamp"], headers,
  });
}

{
  const secret = "8f742231b10e8888abcd99yyyzzz85a5";
  const body = "command=%2Fdeploy&text=now&trigger_id=1.2";
  requests.push({
    plugin: "slack", library: "@slack/bolt", secret, body, signature: "x-slack-signature",
    covered: ["x-slack-request-timestamp"],
    headers: {
      "content-type": "application/x-www-form-urlencoded", "x-slack-request-timestamp": String(now),
      "x-slack-signature": `v0=${hmac(secret, `v0:${now}:${body}`, "hex")}`,
    },
  });
}

{
  const secret = "shpss_5C1fe2b7d94a4e0b";
  const body = JSON.stringify({ id: 5, name: "#1001" });
  requests.push({
    plugin: "shopify", library: "@shopify/shopify-api", secret, body, signature: "x-shopify-hmac-sha256",
    headers: {
      ...json, "x-shopify-topic": "orders/create", "x-shopify-shop-domain": "acme.myshopify.com",
      "x-shopify-api-version": "2026-10", "x-shopify-webhook-id": "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043",
      "x-shopify-hmac-sha256": hmac(secret, body, "base64"),
    },
  });
}

{
  const secret = "lin_wh_1C5S7xQvT2m";
  const body = JSON.stringify({ action: "create", type: "Issue", data: { id: "1" }, webhookTimestamp: now * 1000 });
  requests.push({
    plugin: "linear", library: "@linear/sdk", secret, body, signature: "linear-signature",
    headers: { ...json, "linear-event": "Issue", "linear-delivery": "1", "linear-signature": hmac(secret, body, "hex") },
  });
}

{
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const secret = publicKey.export({ type: "spki", format: "der" }).subarray(-32).toString("hex");
  const body = JSON.stringify({ type: 2, id: "1", token: "t", data: { name: "deploy" } });
  requests.push({
    plugin: "discord", library: "discord-interactions", secret, body, signature: "x-signature-ed25519",
    covered: ["x-signature-timestamp"],
    headers: {
      ...json, "x-signature-timestamp": String(now),
      "x-signature-ed25519": signWithKey(null, Buffer.from(now + body), privateKey).toString("hex"),
    },
  });
}

{
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const secret = publicKey.export({ type: "spki", format: "der" }).toString("base64");
  const body = JSON.stringify([{ event: "delivered", sg_event_id: "1", email: "é@example.com" }]) + "\r\n";
  requests.push({
    plugin: "sendgrid", library: "@sendgrid/eventwebhook", secret, body,
    signature: "x-twilio-email-event-webhook-signature", covered: ["x-twilio-email-event-webhook-timestamp"],
    headers: {
      ...json, "x-twilio-email-event-webhook-timestamp": String(now),
      "x-twilio-email-event-webhook-signature": signWithKey("sha256", Buffer.from(now + body), privateKey).toString("base64"),
    },
  });
}

{
  const secret = "5C1fe2b7-d94a-4e0b-9c55-0a3d1c7e8f21";
  const body = JSON.stringify([{ subscriptionType: "contact.creation", eventId: 1, objectId: 5 }]);
  const [method, url, query, timestamp] = ["POST", "https://hooks.example.com/hooks/0123456789abcdef", "a=b", String(now * 1000)];
  const signed = { clientSecret: secret, url: `${url}?${query}`, requestBody: body, timestamp };
  requests.push({
    plugin: "hubspot", library: "@hubspot/api-client", secret, body, method, url, query, signature: "x-hubspot-signature-v3",
    covered: ["x-hubspot-request-timestamp"],
    headers: {
      ...json, "x-hubspot-request-timestamp": timestamp, "x-hubspot-signature-v3": HubSpot.getSignature(method, "v3", signed),
    },
  });
}

const written = requests.map((request) => ({
  ...request, headers: Object.entries(request.headers), body: Buffer.from(request.body).toString("base64"),
}));
process.stdout.write(JSON.stringify(written));
