// Reads {"now": seconds} and writes requests that the vendors' own libraries have signed.
import { readFileSync } from "node:fs";
import { sign } from "@octokit/webhooks-methods";
import { Webhook as StandardWebhook } from "standardwebhooks";
import { Webhook as SvixWebhook } from "svix";
import Stripe from "stripe";
import twilio from "twilio";

const { now } = JSON.parse(readFileSync(0, "utf8"));
const date = new Date(now * 1000);
const json = { "content-type": "application/json" };
const requests = [];

{
  const secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
  const body = JSON.stringify({ type: "invoice.paid", timestamp: date.toISOString(), data: { id: "é" } });
  const library = new StandardWebhook(secret);
  requests.push({
    plugin: "standard-webhooks", library: "standardwebhooks", secret, body, signature: "webhook-signature",
    headers: {
      ...json, "webhook-id": "msg_1", "webhook-timestamp": String(now), "webhook-signature": library.sign("msg_1", date, body),
    },
  });
  const svix = new SvixWebhook(secret);
  requests.push({
    plugin: "standard-webhooks", library: "svix", secret, body, signature: "svix-signature",
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

process.stdout.write(JSON.stringify(requests));
