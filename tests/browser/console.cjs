// What each role does in the console, in a browser: see run.sh. Prints each thing that is wrong; exits with 1 where anything is.
const { chromium } = require("playwright-core");
const { AxeBuilder } = require("@axe-core/playwright");
const [base, pki, out] = process.argv.slice(2);
const SIZES = [{ width: 1280, height: 800 }, { width: 390, height: 844 }];
const LOCALES = { "vi-VN": "vi", "en-GB": "en" };
const wrong = [];
let pages = 0;

function check(holds, what) {
  if (!holds) wrong.push(what);
}

/** A browser of one person, with or without scripts, and how it looks at pages. */
async function visitor(browser, id, locale, size, scripts = true) {
  const certificate = [{ origin: base, certPath: `${pki}/${id}.pem`, keyPath: `${pki}/${id}.key` }];
  const context = await browser.newContext({
    ignoreHTTPSErrors: true, clientCertificates: id ? certificate : [], locale, viewport: size, javaScriptEnabled: scripts, bypassCSP: scripts,
  });
  const page = await context.newPage();
  page.on("dialog", (dialog) => { wrong.push(`${page.url()}: a script of somebody else's ran`); dialog.dismiss(); });
  const look = async (name) => {
    const where = `${id ?? "nobody"} ${locale} ${size.width} ${name}`;
    pages += 1;
    await page.screenshot({ path: `${out}/${where.replaceAll(" ", "-")}.png`, fullPage: true });
    check((await page.locator("html").getAttribute("lang")) === LOCALES[locale], `${where}: language`);
    if (!scripts) return;
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    check(wide <= 0, `${where}: ${wide} px too wide`);
    const { violations } = await new AxeBuilder({ page }).analyze();
    for (const one of violations) check(false, `${where}: ${one.id}: ${one.nodes.map((node) => node.html.slice(0, 120)).join(" | ")}`);
  };
  const open = async (name, path, status = 200) => {
    const response = await page.goto(base + path);
    check(response.status() === status, `${id} ${path}: ${response.status()} in place of ${status}`);
    await look(name);
  };
  const signIn = async () => {
    await page.goto(base + "/console/");
    await look("sign-in");
    await page.locator("main form button").click();
    check(page.url() === base + "/console/", `${id}: not signed in, but at ${page.url()}`);
    await look("overview");
  };
  return { page, open, look, signIn, end: () => context.close() };
}

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

(async () => {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
  await firstToken(browser, "vi-VN", SIZES[0], false, "portal");
  await firstToken(browser, "en-GB", SIZES[1], true, "portal-2");
  for (const size of SIZES) for (const locale of Object.keys(LOCALES)) await tour(browser, locale, size);
  await browser.close();
  wrong.forEach((one) => console.log(one));
  console.log(`${pages} pages looked at, ${wrong.length} things wrong`);
  process.exit(wrong.length ? 1 : 0);
})().catch((error) => { console.log(error); process.exit(1); });
