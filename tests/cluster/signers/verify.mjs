// Reads {"now": milliseconds, "requests": [...]} and writes whether the vendors' own libraries believe each of them then.
import { readFileSync } from "node:fs";
import { Signature as HubSpot } from "@hubspot/api-client";
import { LinearWebhookClient } from "@linear/sdk/webhooks";
import { verify as verifyGitHub } from "@octokit/webhooks-methods";
import { EventWebhook } from "@sendgrid/eventwebhook";
import "@shopify/shopify-api/adapters/node";
import { ApiVersion, LogSeverity, shopifyApi } from "@shopify/shopify-api";
import bolt from "@slack/bolt";
import { verifyKey } from "discord-interactions";
import { Webhook as StandardWebhook } from "standardwebhooks";
import Stripe from "stripe";
import { Webhook as SvixWebhook } from "svix";
import twilio from "twilio";

const { now, requests } = JSON.parse(readFileSync(0, "utf8"));
// No verdict may depend on how long the others take.
globalThis.Date = class extends Date {
  constructor(...time) {
    super(...(time.length > 0 ? time : [now]));
  }
  static now() {
    return now;
  }
};

const shopify = (apiSecretKey) =>
  shopifyApi({
    apiKey: "key", apiSecretKey, hostName: "app.example.com", isEmbeddedApp: false,
    apiVersion: Object.values(ApiVersion)[0], logger: { level: LogSeverity.Error, log: () => {} },
  });
const sendGrid = new EventWebhook();

// `raw` are the bytes of the body, `body` the same as a text.
const libraries = {
  "@hubspot/api-client": ({ secret, headers, body, method, url, query }) =>
    HubSpot.isValid({
      method, signatureVersion: "v3", signature: headers["x-hubspot-signature-v3"], clientSecret: secret,
      url: `${url}?${query}`, requestBody: body, timestamp: headers["x-hubspot-request-timestamp"],
    }),
  "@linear/sdk": ({ secret, headers, raw, body }) =>
    new LinearWebhookClient(secret).verify(raw, headers["linear-signature"], JSON.parse(body).webhookTimestamp),
  "@octokit/webhooks-methods": ({ secret, headers, body }) => verifyGitHub(secret, body, headers["x-hub-signature-256"]),
  "@sendgrid/eventwebhook": ({ secret, headers, raw }) =>
    sendGrid.verifySignature(
      sendGrid.convertPublicKeyToECDSA(secret), raw, headers["x-twilio-email-event-webhook-signature"],
      headers["x-twilio-email-event-webhook-timestamp"],
    ),
  "@shopify/shopify-api": async ({ secret, headers, body }) => {
    const rawRequest = { method: "POST", url: "/", headers };
    return (await shopify(secret).webhooks.validate({ rawBody: body, rawRequest })).valid;
  },
  "@slack/bolt": ({ secret, headers, body }) => {
    bolt.verifySlackRequest({ signingSecret: secret, body, headers });
    return true;
  },
  "discord-interactions": ({ secret, headers, raw }) =>
    verifyKey(raw, headers["x-signature-ed25519"], headers["x-signature-timestamp"], secret),
  standardwebhooks: ({ secret, headers, raw }) => Boolean(new StandardWebhook(secret).verify(raw, headers)),
  stripe: ({ secret, headers, raw }) =>
    Boolean(Stripe.webhooks.constructEvent(raw, headers["stripe-signature"], secret)),
  svix: ({ secret, headers, raw }) => Boolean(new SvixWebhook(secret).verify(raw, headers)),
  twilio: ({ secret, headers, body, url, query }) =>
    twilio.validateRequest(
      secret, headers["x-twilio-signature"], `${url}?${query}`, Object.fromEntries(new URLSearchParams(body)),
    ),
};

// A header that is there twice, as Node.js shows it.
const joined = (headers) => {
  const all = {};
  for (const [name, value] of headers) all[name] = name in all ? `${all[name]}, ${value}` : value;
  return all;
};

const verdicts = [];
for (const request of requests) {
  const raw = Buffer.from(request.body, "base64");
  const seen = { ...request, headers: joined(request.headers), raw, body: raw.toString() };
  try {
    verdicts.push((await libraries[request.library](seen)) === true);
  } catch {
    verdicts.push(false);
  }
}
process.stdout.write(JSON.stringify(verdicts));
