// A real OpenID provider (npm's oidc-provider) for the console's suite: with TLS of the province's CA, and its own page to sign in at, which
// takes any name. Usage: node provider.cjs PORT REDIRECT_URI SECRET PKI. Prints "ready" when it listens.
const { readFileSync } = require("node:fs");
const { createServer } = require("node:https");
const { generateKeyPairSync } = require("node:crypto");
const { Provider } = require("oidc-provider");
const [port, redirect, secret, pki] = process.argv.slice(2);

const key = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ format: "jwk" });
const provider = new Provider(`https://localhost:${port}`, {
  clients: [{
    client_id: "ndxp-gateway", client_secret: secret, redirect_uris: [redirect], response_types: ["code"], grant_types: ["authorization_code"],
    id_token_signed_response_alg: "ES256",
  }],
  jwks: { keys: [{ ...key, use: "sig", alg: "ES256", kid: "one" }] },
  cookies: { keys: [secret] },
  pkce: { required: () => true },
  features: { devInteractions: { enabled: true } },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
});
provider.on("server_error", (_, error) => console.error(error));
createServer({ cert: readFileSync(`${pki}/sandbox.pem`), key: readFileSync(`${pki}/sandbox.key`) }, provider.callback())
  .listen(Number(port), "127.0.0.1", () => console.log("ready"));
