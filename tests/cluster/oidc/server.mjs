// A strict OAuth server with a small API behind it, for the integration tests: `node server.mjs CONFIGURATION`.
//
// The configuration is JSON: {port, redirectURI, accessTokenLife, clients: [{id, secret}]}. The login and consent pages are
// those of oidc-provider's development interactions, which take any name and password.
//
// /api/me      who the access token belongs to
// /api/hooks   GET lists webhooks, POST makes one; DELETE /api/hooks/ID removes one
// /requests    GET: the requests for tokens so far, by grant type, without their secrets; no token needed
import { createServer } from 'node:http';

// The warning that newer versions of Node are supported longer is for production.
const { Provider } = await import('oidc-provider');

const { port, redirectURI, accessTokenLife, clients } = JSON.parse(process.argv[2]);
const issuer = `http://127.0.0.1:${port}`;

const provider = new Provider(issuer, {
  clients: clients.map(({ id, secret }) => ({
    client_id: id,
    client_secret: secret,
    redirect_uris: [redirectURI],
    grant_types: ['authorization_code', 'refresh_token', 'client_credentials'],
    token_endpoint_auth_method: 'client_secret_basic',
    // Loopback over http is for tests.
    application_type: 'native',
  })),
  scopes: ['hooks', 'offline_access', 'openid'],
  features: {
    devInteractions: { enabled: true },
    revocation: { enabled: true },
    introspection: { enabled: true },
    clientCredentials: { enabled: true },
  },
  pkce: { required: () => true },
  // Each refresh token works once; who uses one again loses the grant.
  rotateRefreshToken: true,
  issueRefreshToken: async () => true,
  ttl: {
    AccessToken: accessTokenLife,
    ClientCredentials: accessTokenLife,
    RefreshToken: 3600,
    Grant: 3600,
    Session: 3600,
    Interaction: 600,
    AuthorizationCode: 60,
  },
  findAccount: async (_, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
  cookies: { keys: ['only for tests'] },
});

const requests = { authorization_code: 0, refresh_token: 0, client_credentials: 0, refused: 0 };
const count = (ctx) => {
  requests[ctx.oidc.params?.grant_type] += 1;
};
provider.on('grant.success', count);
provider.on('grant.error', () => {
  requests.refused += 1;
});

const hooks = new Map();
let last = 0;

async function account(request) {
  const token = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1] ?? '';
  const found = (await provider.AccessToken.find(token)) ?? (await provider.ClientCredentials.find(token));
  return found?.isValid ? (found.accountId ?? found.clientId) : undefined;
}

async function body(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  return JSON.parse(Buffer.concat(parts).toString() || '{}');
}

async function api(request, path) {
  if (path === '/requests') return [200, requests];
  const who = await account(request);
  if (!who) return [401, { message: 'the access token is not valid' }];
  if (path === '/api/me') return [200, { login: who }];
  if (path === '/api/hooks' && request.method === 'GET') return [200, [...hooks.values()]];
  if (path === '/api/hooks' && request.method === 'POST') {
    const hook = { id: String((last += 1)), ...(await body(request)) };
    hooks.set(hook.id, hook);
    return [201, hook];
  }
  const id = path.slice('/api/hooks/'.length);
  if (request.method === 'DELETE' && hooks.delete(id)) return [204];
  return [404, { message: 'not found' }];
}

const callback = provider.callback();
const server = createServer((request, response) => {
  const path = request.url.split('?')[0];
  if (path !== '/requests' && !path.startsWith('/api/')) return callback(request, response);
  return api(request, path).then(
    ([status, json]) => {
      response.writeHead(status, { 'content-type': 'application/json' });
      response.end(json === undefined ? undefined : JSON.stringify(json));
    },
    (error) => {
      response.writeHead(500);
      response.end(String(error));
    },
  );
});
server.listen(port, '127.0.0.1');
