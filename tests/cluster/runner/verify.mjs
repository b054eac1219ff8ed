// Reads a request as a runner's author would: JSON on standard input, JSON on standard output.
//
// In: {headers, body (base64), secret (or null)}. Out: {event} or {eventError}; with a secret {verified} or {signatureError}.
import { readFileSync } from 'node:fs';
import { HTTP } from 'cloudevents';
import { Webhook } from 'standardwebhooks';

const { headers, body, secret } = JSON.parse(readFileSync(0, 'utf8'));
const text = Buffer.from(body, 'base64').toString('utf8');
const answer = {};

try {
  const event = HTTP.toEvent({ headers, body: text });
  event.validate();
  answer.event = event.toJSON();
} catch (error) {
  answer.eventError = String(error);
}

if (secret !== null) {
  try {
    // Without the prefix, the bytes themselves are the key.
    const webhook = secret.startsWith('whsec_') ? new Webhook(secret) : new Webhook(secret, { format: 'raw' });
    webhook.verify(text, headers);
    answer.verified = true;
  } catch (error) {
    answer.signatureError = String(error);
  }
}

console.log(JSON.stringify(answer));
