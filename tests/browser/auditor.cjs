// The auditor's tasks in a browser: figures, and a citizen's report and sheet. See run.sh.
const { base, SIZES, LOOKS, check, visitor, run } = require("./visitor.cjs");

async function tasks(browser, locale, size, scripts) {
  const kiem = await visitor(browser, "kiem", locale, size, scripts);
  const { page } = kiem;
  await kiem.signIn();
  if (size === SIZES[1] && scripts) {
    await page.locator("nav summary").click();
    await kiem.look("menu");
    await page.locator("nav summary").click();
  }
  await kiem.go("/console/statistics");
  await kiem.look("statistics");
  check((await page.locator("figure.chart svg").count()) >= 5, "figures without charts");
  await page.locator("figure.chart summary").first().click();
  check(await page.locator("figure.chart details[open] td").first().isVisible(), "a chart without its table");
  await page.check("[name=exact]");
  await page.locator("form.filter button").click();
  await kiem.look("statistics-exact");
  await kiem.open("statistics-empty", "/console/statistics?client=nobody");
  await kiem.open("statistics-wrong", "/console/statistics?from=2099-01-01", 400);
  await kiem.go("/console/people");
  await kiem.look("people");
  await page.fill("[name=ids]", "022055356620\n014055356620");
  await page.fill("[name=case]", "Nguyễn Văn A");
  await page.click("button[value=page]");
  await kiem.look("people-wrong");
  check(await page.locator("#case-error").isVisible(), "a wrong number is not said beside its field");
  await page.fill("[name=case]", "12/KN");
  await page.click("button[value=page]");
  await kiem.look("people-report");
  check(!page.url().includes("022055356620"), "an id in an address");
  for (const kind of ["sheet", "pdf", "json"]) {
    const [download] = await Promise.all([page.waitForEvent("download"), page.click(`button[value=${kind}]`)]);
    check(/\.(pdf|json)$/.test(download.suggestedFilename()), `${kind}: ${download.suggestedFilename()}`);
    check((await download.failure()) === null, `${kind} is not downloaded`);
  }
  await kiem.go("/console/findings");
  await kiem.look("findings");
  const open = page.locator("td details", { has: page.locator("form") });
  if ((await open.count()) > 0) {
    await open.first().locator("summary").click();
    await page.locator("[name=reason]").first().fill(" ");
    await open.first().locator("button").click();
    await kiem.look("findings-mark-wrong");
    check(await page.locator(".error").first().isVisible(), "a review without words is not refused at its field");
    await page.locator("[name=reason]").first().fill("Bốn sở cùng giải quyết một hồ sơ liên thông; đã đối chiếu với từng đơn vị, không có gì bất thường.");
    await open.first().locator("button").click();
  }
  await kiem.look("findings-reviewed");
  check((await page.locator(".state.good").count()) > 0, "no anomaly is reviewed");
  await kiem.go("/console/checkpoints");
  await kiem.look("checkpoints");
  const [checkpoint] = await Promise.all([page.waitForEvent("download"), page.locator("a[download]").click()]);
  check(checkpoint.suggestedFilename() === "checkpoint.txt", `checkpoint: ${checkpoint.suggestedFilename()}`);
  await kiem.go("/console/tail");
  await kiem.look("tail");
  if (scripts) {
    const first = await page.locator("#live .hint").last().textContent();
    await page.waitForFunction((then) => document.querySelector("#live .hint:last-child").textContent !== then, first);
  }
  await page.locator(".actions a").first().click();
  await kiem.look("tail-still");
  await kiem.open("exports-empty", "/console/exports?client=so-tu-phap");
  await page.locator("main form button").last().click();
  for (let tries = 0; tries < 50 && (await page.locator("a[download]").count()) === 0; tries += 1) {
    if (!scripts) await page.reload();
    await page.waitForTimeout(200);
  }
  await kiem.look("exports");
  const [exported] = await Promise.all([page.waitForEvent("download"), page.locator("a[download]").first().click()]);
  check(exported.suggestedFilename().endsWith(".csv"), `export: ${exported.suggestedFilename()}`);
  await page.locator("form[action$='/remove'] button").first().click();
  await kiem.open("exchanges", "/console/exchanges?operation=VerifyCitizen");
  await page.locator("td a").first().click();
  await kiem.look("exchange");
  await kiem.open("findings-wrong", "/console/findings?from=2026-01-01&to=2026-11-01", 400);
  await kiem.open("holds-empty", "/console/holds");
  await page.fill("[name=case]", "VA-7/2026");
  await page.locator("main form button").last().click();
  await kiem.look("holds-wrong");
  await page.fill("[name=client]", "cong-dich-vu-cong-truc-tuyen-mot-cua-lien-thong-tinh-quang-ninh");
  await page.locator("main form button").last().click();
  await kiem.look("holds");
  await page.locator("td summary").first().click();
  await page.locator("button.danger").first().click();
  check((await page.locator("td summary").count()) === 0, "a hold is not released");
  await kiem.end();
  const lan = await visitor(browser, "lan", locale, size, scripts);
  await lan.signIn();
  await lan.open("auditor-refused", "/console/people", 403);
  await lan.end();
}

run(async (browser) => {
  for (const { size, locale } of LOOKS) await tasks(browser, locale, size, true);
  await tasks(browser, "vi-VN", SIZES[0], false);
  await tasks(browser, "en-GB", SIZES[1], false);
});
