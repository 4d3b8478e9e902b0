// Signing in at a province's single sign-on (a real provider, npm's oidc-provider) without a certificate: the provider's own page, an act,
// signing out; who is nobody here, and who breaks off there. See run.sh.
const { base, LOOKS, SIZES, LOCALES, check, visitor, run } = require("./visitor.cjs");

/** From the console's page to the provider's, which is of another site. */
async function leave(person) {
  await person.page.goto(base + "/console/");
  check(person.page.url() === base + "/console/sign-in", `at ${person.page.url()}`);
  await person.page.locator("main a.button").click();
  await person.page.locator("[name=login]").waitFor();
  check(person.page.url().startsWith("https://localhost:"), `not at the provider, but at ${person.page.url()}`);
}

/** Signs in there, and agrees. */
async function enter(person, name) {
  await person.page.fill("[name=login]", name);
  await person.page.fill("[name=password]", "anything");
  await person.page.locator("form button[type=submit]").click();
  await person.page.locator("input[name=prompt][value=consent]").waitFor({ state: "attached" });
  await person.page.locator("form button[type=submit]").click();
  await person.page.waitForURL((url) => url.href.startsWith(base));
}

/** A person signs in, does something, and signs out. */
async function act(browser, locale, size, scripts) {
  const lan = await visitor(browser, null, locale, size, scripts);
  await lan.page.goto(base + "/console/sign-in");
  await lan.look("openid-sign-in");
  await leave(lan);
  await enter(lan, "lan");
  // The page that leads on does so by itself, with the session's strict cookie.
  await lan.page.waitForURL(base + "/console/");
  check((await lan.page.locator(".who strong").textContent()) === "lan", "not signed in as lan");
  await lan.look("openid-overview");
  await lan.page.goto(base + "/console/keys");
  const keys = await lan.page.locator("tbody tr").count();
  await lan.page.locator("details:has(form[action$='/rotate']) > summary").click();
  await lan.page.locator("form[action$='/rotate'] button").click();
  check((await lan.page.locator("tbody tr").count()) === keys + 1, "no new key");
  const cookies = (await lan.page.context().cookies(base)).filter((one) => one.name.startsWith("__Host-"));
  check(cookies.length === 1 && cookies[0].sameSite === "Strict" && cookies[0].httpOnly, `cookies: ${JSON.stringify(cookies)}`);
  await lan.page.locator(".who form button").click();
  check(lan.page.url() === base + "/console/sign-in", `signed out, and at ${lan.page.url()}`);
  await lan.open("openid-signed-out", "/console/sign-in");
  await lan.page.goto(base + "/console/keys");
  check(lan.page.url() === base + "/console/sign-in", "the session goes on after signing out");
  await lan.end();
}

/** What is refused: who is nobody here, who breaks off there, and an answer that comes twice. */
async function refused(browser, locale, size) {
  const guest = await visitor(browser, null, locale, size);
  await leave(guest);
  let answer;
  guest.page.on("request", (request) => { if (request.url().includes("/openid/callback?")) answer = request.url(); });
  await enter(guest, "khach");
  check((await guest.page.locator(".notice.wrong").count()) === 1, "somebody who is nobody here has got in");
  await guest.look("openid-unknown");
  await guest.open("openid-again", answer.slice(base.length), 403);
  check((await guest.page.locator("main").textContent()).includes("attempt_unknown"), "an answer is taken twice");
  await guest.end();
  const undecided = await visitor(browser, null, locale, size);
  await leave(undecided);
  await undecided.page.locator("a[href$='/abort']").click();
  await undecided.page.waitForURL((url) => url.href.startsWith(base));
  check((await undecided.page.locator("main").textContent()).includes("provider_refused"), "no word of what has happened");
  await undecided.look("openid-broken-off");
  await undecided.end();
}

run(async (browser) => {
  for (const { size, locale } of LOOKS) {
    await act(browser, locale, size, true);
    await refused(browser, locale, size);
  }
  await act(browser, Object.keys(LOCALES)[0], SIZES[0], false);
});
