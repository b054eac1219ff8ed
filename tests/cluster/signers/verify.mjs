// Reads {"requests": [...]} and writes whether the vendors' own libraries believe each of them.
import { readFileSync } from "node:fs";
import { LinearWebhookClient } from "@linear/sdk/webhooks";
import { verify as verifyGitHub } from "@octokit/webhooks-methods";
import "@shopify/shopify-api/adapters/node";
import { ApiVersion, LogSeverity, shopifyApi } from "@shopify/shopify-api";
import bolt from "@slack/bolt";
import { verifyKey } from "discord-interactions";
import { Webhook as StandardWebhook } from "standardwebhooks";
import Stripe from "stripe";
import { Webhook as SvixWebhook } from "svix";
import twilio from "twilio";

const libraries = {
  "@linear/sdk": ({ secret, headers, body }) =>
    new LinearWebhookClient(secret).verify(
      Buffer.from(body), headers["linear-signature"], JSON.parse(body).webhookTimestamp,
    ),
  "@octokit/webhooks-methods": ({ secret, headers, body }) => verifyGitHub(secret, body, headers["x-hub-signature-256"]),
  "@shopify/shopify-api": async ({ secret, headers, body }) => {
    const shopify = shopifyApi({
      apiKey: "key", apiSecretKey: secret, hostName: "app.example.com", isEmbeddedApp: false,
      apiVersion: Object.values(ApiVersion)[0], logger: { level: LogSeverity.Error, log: () => {} },
    });
    return (await shopify.webhooks.validate({ rawBody: body, rawRequest: { method: "POST", url: "/", headers } })).valid;
  },
  "@slack/bolt": ({ secret, headers, body }) => {
    bolt.verifySlackRequest({ signingSecret: secret, body, headers });
    return true;
  },
  "discord-interactions": ({ secret, headers, body }) =>
    verifyKey(body, headers["x-signature-ed25519"], headers["x-signature-timestamp"], secret),
  standardwebhooks: ({ secret, headers, body }) => Boolean(new StandardWebhook(secret).verify(body, headers)),
  stripe: ({ secret, headers, body }) =>
    Boolean(Stripe.webhooks.constructEvent(body, headers["stripe-signature"], secret)),
  svix: ({ secret, headers, body }) => Boolean(new SvixWebhook(secret).verify(body, headers)),
  twilio: ({ secret, headers, body, url, query }) =>
    twilio.validateRequest(
      secret, headers["x-twilio-signature"], `${url}?${query}`, Object.fromEntries(new URLSearchParams(body)),
    ),
};

const verdicts = [];
for (const request of JSON.parse(readFileSync(0, "utf8")).requests) {
  try {
    verdicts.push((await libraries[request.library](request)) === true);
  } catch {
    verdicts.push(false);
  }
}
process.stdout.write(JSON.stringify(verdicts));
