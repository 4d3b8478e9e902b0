// How a suite looks at the console: a browser of one person, and what holds for every page that it opens. See run.sh.
const { chromium } = require("playwright-core");
const { AxeBuilder } = require("@axe-core/playwright");
const [base, pki, out] = process.argv.slice(2);
const SIZES = [{ width: 1280, height: 800 }, { width: 390, height: 844 }];
const LOCALES = { "vi-VN": "vi", "en-GB": "en" };
// Screen and language of a tour: Vietnamese on a phone and English on a laptop; with ALL=1 each language on both.
const LOOKS = SIZES.flatMap((size) => Object.keys(LOCALES).map((locale) => ({ size, locale })))
  .filter(({ size, locale }) => process.env.ALL || (locale === "vi-VN") === (size === SIZES[1]));
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
  /** Goes to a page by the menu, which a narrow screen has folded. */
  const go = async (path) => {
    const menu = page.locator("nav summary");
    if (await menu.isVisible()) await menu.click();
    await page.locator(`nav a[href='${path}']`).click();
  };
  const signIn = async (home = "/console/") => {
    await page.goto(base + "/console/");
    await look("sign-in");
    await page.locator("main form button").click();
    check(page.url() === base + home, `${id}: not signed in, but at ${page.url()}`);
    await look("overview");
  };
  return { page, open, look, go, signIn, end: () => context.close() };
}

/** Runs a suite in a browser, prints each thing that is wrong and exits with 1 where anything is. */
function run(suite) {
  (async () => {
    const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
    await suite(browser);
    await browser.close();
    wrong.forEach((one) => console.log(one));
    console.log(`${pages} pages looked at, ${wrong.length} things wrong`);
    process.exit(wrong.length ? 1 : 0);
  })().catch((error) => { console.log(error); process.exit(1); });
}

module.exports = { base, pki, out, SIZES, LOCALES, LOOKS, check, visitor, run };
