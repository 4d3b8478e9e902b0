// Live parts come from this gateway, over the page's own connection, and are escaped there; anything else than HTML is refused
// (Trusted Types). htmx reads an answer by one call, and this is what lets it.
"use strict";
window.trustedTypes?.createPolicy("default", { createHTML: (html) => html });
