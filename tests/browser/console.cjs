// What each role does in the console, in a browser: see run.sh.
const { base, pki, SIZES, LOOKS, check, visitor, run } = require("./visitor.cjs");

/** Every page of a role. */
async function tour(browser, locale, size) {
  for (const id of [null, "portal", "stranger"]) {
    const outside = await visitor(browser, id, locale, size);
    await outside.open("outside", "/console/clients");
    check(outside.page.url() === base + "/console/sign-in", `${id} is at ${outside.page.url()}`);
    await outside.end();
  }
  const long = "cong-dich-vu-cong-truc-tuyen-mot-cua-lien-thong-tinh-quang-ninh";
  const lan = await visitor(browser, "lan", locale, size);
  await lan.signIn();
  for (const path of ["clients", "clients/one-stop-shop", `clients/${long}`, "clients/register", "clients/one-stop-shop/suspend", "grants", "grants/add", "tokens", "approvals"])
    await lan.open(path.replaceAll("/", "_"), `/console/${path}`);
  await lan.page.goto(base + "/console/grants");
  await lan.page.locator("tbody a").first().click();
  await lan.look("grant");
  await lan.page.locator(".actions a").first().click();
  await lan.page.fill("[name=purpose]", "procedure:1.004222");
  await lan.page.click("button[value=look]");
  await lan.look("grant-preview");
  check(await lan.page.locator(".notice dl.facts").isVisible(), "a change of a grant says nothing of its effect");
  await lan.page.goto(base + "/console/tokens");
  await lan.page.locator("tbody a").first().click();
  await lan.look("token-one");
  await lan.page.goto(base + "/console/clients/register");
  await lan.page.fill("[name=id]", "cong");
  await lan.page.fill("[name=agency]", "H49");
  await lan.page.fill("[name=certificate]", "x");
  await lan.page.click("button[value=look]");
  await lan.look("client-wrong");
  check((await lan.page.locator("p.fault").count()) === 1, "a wrong certificate is not said at its field");
  await lan.open("not-found", "/console/clients/none", 404);
  await lan.open("refused", "/console/exchanges", 403);
  await lan.end();
  const kiem = await visitor(browser, "kiem", locale, size);
  await kiem.signIn();
  await kiem.open("search", "/console/exchanges?client=one-stop-shop");
  await kiem.page.locator("tbody a").first().click();
  await kiem.look("exchange");
  check((await kiem.page.locator(".proof.good").count()) > 0, "an exchange's proof is not verified in view");
  await kiem.open("empty", "/console/exchanges?client=nobody");
  await kiem.end();
}

/** From an empty form to a token, through two people's browsers, by what stands on the pages. */
async function firstToken(browser, locale, size, scripts, id) {
  const pem = require("fs").readFileSync(`${pki}/portal.pem`, "utf8");
  const lan = await visitor(browser, "lan", locale, size, scripts);
  const minh = await visitor(browser, "minh", locale, size, scripts);
  await lan.signIn();
  await minh.signIn();
  await lan.page.goto(base + "/console/clients/register");
  await lan.page.fill("[name=id]", id);
  await lan.page.fill("[name=agency]", "H49.34");
  // One system's certificate is no other's: only the first of these has it.
  if (id === "portal") await lan.page.fill("[name=certificate]", pem);
  await lan.page.click("main button[type=submit]");
  await lan.look("client-confirm");
  await lan.page.click("main button[value=register]");
  await lan.page.goto(`${base}/console/grants/add?client=${id}`);
  await lan.page.locator("fieldset details", { has: lan.page.locator("[value='population:read']") }).locator("summary").click();
  await lan.page.check("[value='population:read']");
  await lan.page.fill("[name=purpose]", "procedure:1.004222");
  await lan.page.fill("[name=legal_basis]", "NĐ 278/2025/NĐ-CP");
  await lan.page.click("main button[type=submit]");
  await lan.look("grant-waits");
  await minh.page.goto(base + "/console/approvals");
  await minh.look("approvals");
  const desk = minh.page.locator("section.change", { hasText: id }).first();
  await desk.locator("summary").first().click();
  await desk.locator("form[action$='/approve'] button").click();
  if (id === "portal") {
    await lan.page.goto(base + `/console/tokens?client=${id}`);
    await lan.page.locator("main > details > summary").click();
    await lan.page.fill("[name=certificate]", pem);
    await lan.page.locator("form:has([name=certificate]) button[type=submit]").click();
    check((await lan.page.locator("textarea.secret").inputValue()).startsWith("eyJ"), `${id}: no token was issued`);
    await lan.look("token");
  }
  await lan.page.goto(`${base}/console/clients/${id}/suspend`);
  await lan.page.click("main button[type=submit]");
  check((await lan.page.locator(".state.wrong").count()) > 0, `${id} is not suspended`);
  await lan.page.locator("header form[action='/console/sign-out'] button").click();
  await lan.page.goto(base + "/console/clients");
  check(lan.page.url() === base + "/console/sign-in", "signed out, and still at a page");
  await lan.end();
  await minh.end();
}

run(async (browser) => {
  await firstToken(browser, "vi-VN", SIZES[0], false, "portal");
  await firstToken(browser, "en-GB", SIZES[1], true, "portal-2");
  for (const { size, locale } of LOOKS) await tour(browser, locale, size);
});
