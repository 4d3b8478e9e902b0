// Live parts come from this gateway, over the page's own connection, and are escaped there. Trusted Types refuse anything but HTML;
// this policy allows the one call by which htmx parses a response.
"use strict";
window.trustedTypes?.createPolicy("default", { createHTML: (html) => html });
