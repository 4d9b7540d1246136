// What the pages do better with scripts; each works without.
"use strict";

// Times in the reader's own time zone.
function localTimes(root) {
    const format = (options) => new Intl.DateTimeFormat(document.documentElement.lang, options);
    const formats = {
        time: format({ timeStyle: "medium" }),
        date: format({ dateStyle: "medium" }),
        both: format({ dateStyle: "medium", timeStyle: "short" }),
    };
    for (const time of root.querySelectorAll("time[datetime]")) {
        time.title = time.textContent;
        time.textContent = formats[time.dataset.detail].format(new Date(time.dateTime));
        time.removeAttribute("datetime");
    }
}

// A second click sends nothing. (Were it to, the form's key would make it count once.)
document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!form.matches("form.once")) return;
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "yes";
});

// A page that the browser kept, shown again by "back", may be sent again.
window.addEventListener("pageshow", () => {
    for (const form of document.querySelectorAll("form.once")) delete form.dataset.sent;
});

// Back and reload ask for this page anew, and never whether a form is to be sent again.
history.replaceState(history.state, "");

function copyButtons(root) {
    for (const button of root.querySelectorAll("[data-copy]")) {
        if (!navigator.clipboard) continue;
        button.hidden = false;
        button.addEventListener("click", async () => {
            await navigator.clipboard.writeText(document.querySelector(button.dataset.copy).textContent);
            button.textContent = button.dataset.done;
        });
    }
}

// The balance follows what happens to the wallet. Many events at once are one look; without a stream there is
// a look every minute. A page that nobody sees gives its connection back: a browser has six for all its tabs.
function follow(balance) {
    let waiting = null;
    const look = () => {
        waiting ??= setTimeout(() => {
            waiting = null;
            htmx.trigger(balance, "happened");
        }, 100);
    };
    let stream = null;
    const listen = () => {
        stream?.close();
        if (document.hidden) return;
        stream = new EventSource(balance.dataset.events);
        stream.onopen = look;  // something may have happened since the page was made, or seen
        stream.onmessage = look;
        stream.addEventListener("gap", look);
    };
    listen();
    document.addEventListener("visibilitychange", listen);
    window.addEventListener("pagehide", () => stream?.close());
    window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
}

// The days of a filter are the reader's own, unless the reader has named another time zone.
function ownZone() {
    const zone = document.querySelector("[name=zone]");
    if (zone && !zone.value) zone.value = new Intl.DateTimeFormat().resolvedOptions().timeZone ?? "";
}

document.addEventListener("DOMContentLoaded", () => {
    ownZone();
    document.querySelectorAll("[data-events]").forEach(follow);
    localTimes(document);
    copyButtons(document);
    document.querySelector("[aria-invalid=true]")?.focus();  // what is to be corrected
});
document.addEventListener("htmx:afterSettle", () => localTimes(document));
