// What developers of provincial systems find in the console: the catalogue, snippets, and whether a call would pass. See run.sh.
const { base, SIZES, LOOKS, check, visitor, run } = require("./visitor.cjs");

const CITIZEN = "ndxp.population.v1.PopulationService/GetCitizen";

/** From the list to an operation's page, and from there to the question and its answers. */
async function tour(browser, id, locale, size, scripts = true) {
  const person = await visitor(browser, id, locale, size, scripts);
  await person.signIn();
  await person.open("developer-catalogue", "/console/catalogue");
  await person.page.selectOption("[name=source]", "population");
  await person.page.fill("[name=words]", "hộ gia đình");
  await person.page.locator("form.filter button").click();
  check((await person.page.locator("tbody tr").count()) === 1, `${id} ${locale}: not one operation is found by its words`);
  await person.look("developer-found");
  await person.open("developer-operation", `/console/catalogue/${CITIZEN}`);
  for (const summary of await person.page.locator("main > details > summary").all()) await summary.click();
  await person.look("developer-snippets");
  await person.open("developer-stream", "/console/catalogue/ndxp.catalogue.v1.CatalogueService/StreamCatalogue");
  await person.page.goto(base + `/console/catalogue/${CITIZEN}`);
  await person.page.locator("main p.actions a").first().click();
  check((await person.page.inputValue("[name=operation]")) === CITIZEN, "the question is not about the operation that it was asked from");
  await person.page.fill("[name=client]", "one-stop-shop");
  await person.page.fill("[name=purpose]", "1.004222");
  await person.page.locator("main form button").click();
  check((await person.page.locator("strong.state.wrong").count()) === 1, "a call without a grant is not refused");
  await person.look("developer-refused");
  await person.page.selectOption("[name=operation]", "ndxp.budgetunit.v1.BudgetUnitService/GetUnit");
  await person.page.locator("main form button").click();
  check((await person.page.locator("strong.state.good").count()) === 1, "a call with a grant is not allowed");
  await person.look("developer-allowed");
  await person.page.fill("[name=address]", "<img src=x onerror=alert(1)>");
  await person.page.locator("main form button").click();
  check((await person.page.locator("p.fault").count()) === 1, "a wrong address has no word beside it");
  await person.look("developer-fault");
  await person.end();
}

/** A system's own developers: its grants, calls and failures, the catalogue, and the question about it alone. */
async function own(browser, locale, size, scripts = true) {
  const system = await visitor(browser, "one-stop-shop", locale, size, scripts);
  await system.signIn("/console/own");
  check((await system.page.locator("main table").first().innerText()).includes("budgetunit:read"), "own grants are not shown");
  await system.go("/console/catalogue");
  await system.look("own-catalogue");
  await system.go("/console/may-i");
  check((await system.page.locator("[name=client]").count()) === 0, "a system is asked which system it is");
  await system.page.selectOption("[name=operation]", "ndxp.budgetunit.v1.BudgetUnitService/GetUnit");
  await system.page.locator("main form button").click();
  check((await system.page.locator("strong.state.good").count()) === 1, "its own call with a grant is not allowed");
  await system.look("own-allowed");
  await system.page.goto(base + "/console/clients");
  check(system.page.url() === base + "/console/own", `a system is at ${system.page.url()}`);
  await system.end();
}

run(async (browser) => {
  for (const { size, locale } of LOOKS) await own(browser, locale, size);
  await own(browser, "vi-VN", SIZES[1], false);
  for (const { size, locale } of LOOKS) await tour(browser, "lan", locale, size);
  for (const id of ["minh", "van", "kiem"]) await tour(browser, id, "vi-VN", SIZES[1], false);
});
