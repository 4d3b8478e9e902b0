// What those who run the gateway do in the console: figures, sources, contracts, staff, keys. See run.sh.
const { base, pki, SIZES, LOOKS, check, visitor, run } = require("./visitor.cjs");

const PAGES = ["sources", "sources/population", "contracts", "contracts?source=land", "staff", "staff/lan", "keys"];

/** Every page of a role. */
async function tour(browser, id, locale, size, scripts) {
  const person = await visitor(browser, id, locale, size, scripts);
  await person.signIn();
  for (const path of PAGES) await person.open(`operator-${path.replaceAll(/[/?=]/g, "_")}`, `/console/${path}`);
  await person.open("operator-no-source", "/console/sources/none", 404);
  await person.open("operator-no-person", "/console/staff/none", 404);
  const offered = await person.page.goto(base + "/console/keys").then(() => person.page.locator("form[action$='/rotate']").count());
  check(offered === (id === "lan" ? 1 : 0), `${id} is offered ${offered} forms for a new key`);
  await person.end();
}

/** A person comes by two people; what is wrong stands beside its field. */
async function newStaff(browser, locale, size, scripts, name) {
  const lan = await visitor(browser, "lan", locale, size, scripts);
  const minh = await visitor(browser, "minh", locale, size, scripts);
  await lan.signIn();
  await minh.signIn();
  await lan.page.goto(base + "/console/staff");
  await lan.page.locator("main details > summary").first().click();
  await lan.page.fill("[name=id]", name);
  await lan.page.locator("main form button[type=submit]").click();
  check((await lan.page.locator("p.fault").count()) === 1, `${name}: no role, and no word of it beside the field`);
  check((await lan.page.inputValue("[name=id]")) === name, `${name}: what was written is gone`);
  await lan.look("operator-staff-fault");
  await lan.page.check("[value=OPERATOR]");
  await lan.page.fill("[name=justification]", "Quyết định số 12/QĐ-SKHCN");
  await lan.page.locator("main form button[type=submit]").click();
  check(lan.page.url() === base + "/console/approvals", `${name}: at ${lan.page.url()}`);
  await minh.page.goto(base + "/console/approvals");
  const desk = minh.page.locator("section.change", { hasText: `staff:${name}` });
  await minh.look("operator-approval");
  await desk.locator("summary").first().click();
  await desk.locator("form[action$='/approve'] button").click();
  await lan.page.goto(`${base}/console/staff/${name}`);
  check((await lan.page.locator("dl.facts").count()) === 1, `${name} is not of the staff`);
  await lan.page.locator("details:has(form[action$='/remove']) > summary").click();
  await lan.page.locator("form[action$='/remove'] button").click();
  check(lan.page.url() === base + "/console/staff", `${name} is not removed: ${lan.page.url()}`);
  await lan.page.goto(base + "/console/keys");
  const keys = await lan.page.locator("tbody tr").count();
  await lan.page.locator("details:has(form[action$='/rotate']) > summary").click();
  await lan.page.locator("form[action$='/rotate'] button").click();
  check((await lan.page.locator("tbody tr").count()) === keys + 1, "no new key");
  await lan.look("operator-key");
  await lan.end();
  await minh.end();
}

/** A notice of maintenance: what is wrong stands beside its field, what is set is shown and taken away again. */
async function notice(browser, locale, size, scripts) {
  const van = await visitor(browser, "van", locale, size, scripts);
  await van.signIn();
  const form = "form[action$='/notice']";
  await van.page.goto(base + "/console/sources/land");
  await van.page.locator(`details:has(${form}) > summary`).click();
  await van.page.fill("[name=ends]", "2020-01-01T00:00");
  await van.page.fill("[name=text_vi]", "Nâng cấp cơ sở dữ liệu đất đai");
  await van.page.locator(`${form} button`).click();
  check((await van.page.locator("p.fault").count()) === 1, "a maintenance that is over has no word beside its end");
  await van.look("operator-notice-fault");
  await van.page.fill("[name=ends]", new Date(Date.now() + 12 * 3600e3).toISOString().slice(0, 16));
  await van.page.locator(`${form} button`).click();
  check((await van.page.locator("div.notice[role=status]").count()) === 1, "the notice is not shown");
  await van.look("operator-notice");
  await van.page.locator("form[action$='/notice/clear'] button").click();
  check((await van.page.locator("div.notice[role=status]").count()) === 0, "the notice is still there");
  await van.end();
}

/** With the policy of the page in force, the figures renew themselves, and nothing is refused by it. */
async function live(browser) {
  const certificate = [{ origin: base, certPath: `${pki}/lan.pem`, keyPath: `${pki}/lan.key` }];
  const context = await browser.newContext({ ignoreHTTPSErrors: true, clientCertificates: certificate, locale: "en-GB" });
  const page = await context.newPage();
  // A browser asks for an icon, and the end of the session is an answer of its own; what a policy refuses is said in other words.
  const refused = (message) => message.type() === "error" && !message.text().startsWith("Failed to load resource");
  page.on("console", (message) => check(!refused(message), `the live page says: ${message.text()}`));
  page.on("pageerror", (error) => check(false, `the live page fails: ${error}`));
  await page.goto(base + "/console/");
  await page.locator("main form button").click();
  for (const [path, part] of [["/console/", "/console/live"], ["/console/sources/population", "/console/sources/population/live"]]) {
    await page.goto(base + path);
    await page.evaluate(() => document.querySelector("#live").firstElementChild.setAttribute("data-old", "1"));
    await page.waitForResponse((response) => response.url() === base + part && response.status() === 200, { timeout: 20000 });
    await page.waitForFunction(() => !document.querySelector("[data-old]") && document.querySelector("#live table"), null, { timeout: 5000 })
      .catch(() => check(false, `${path} has not renewed itself`));
  }
  // The session ends: the page goes to where one signs in.
  await context.clearCookies();
  await page.waitForURL(base + "/console/sign-in", { timeout: 20000 }).catch(() => check(false, `after its end, at ${page.url()}`));
  await context.close();
}

run(async (browser) => {
  await live(browser);
  await newStaff(browser, "vi-VN", SIZES[1], false, "hoa");
  await newStaff(browser, "en-GB", SIZES[0], true, "nga");
  await notice(browser, "vi-VN", SIZES[1], true);
  await notice(browser, "en-GB", SIZES[0], false);
  for (const { size, locale } of LOOKS) await tour(browser, "lan", locale, size);
  await tour(browser, "minh", "en-GB", SIZES[0]);
  await tour(browser, "kiem", "vi-VN", SIZES[0]);
  await tour(browser, "van", "vi-VN", SIZES[1], false);
});
