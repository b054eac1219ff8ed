// Reads {"now": seconds, "audience": text} and writes JSON Web Tokens of each algorithm, each with what verifies it: a secret or
// a JWK Set that has another key, too.
import { readFileSync } from "node:fs";
import { SignJWT, exportJWK, generateKeyPair } from "jose";

const { now, audience } = JSON.parse(readFileSync(0, "utf8"));
const tokens = [];

const token = (algorithm, key, kid, life = 300) =>
  new SignJWT({ email: "bot@acme.example", email_verified: true })
    .setProtectedHeader({ alg: algorithm, typ: "JWT", kid })
    .setIssuer("https://tokens.example.com")
    .setAudience(audience)
    .setIssuedAt(now)
    .setExpirationTime(now + life)
    .sign(key);

{
  const secret = "jose-S3cret-of-at-least-32-bytes-5C1";
  const key = new TextEncoder().encode(secret);
  tokens.push({ algorithm: "HS256", secret, good: await token("HS256", key), old: await token("HS256", key, undefined, -300) });
}
for (const algorithm of ["RS256", "ES256"]) {
  const [other, own] = [await generateKeyPair(algorithm), await generateKeyPair(algorithm)];
  const keys = await Promise.all(
    [other, own].map(async ({ publicKey }, i) => ({ ...(await exportJWK(publicKey)), kid: `key-${i}`, alg: algorithm, use: "sig" })),
  );
  tokens.push({
    algorithm, secret: "", jwks: { keys }, good: await token(algorithm, own.privateKey, "key-1"),
    old: await token(algorithm, own.privateKey, "key-1", -300), stranger: await token(algorithm, other.privateKey, "key-1"),
  });
}

process.stdout.write(JSON.stringify(tokens));
