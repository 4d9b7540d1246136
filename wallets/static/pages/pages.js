// Improvements of the pages. Every page also works without scripts.
"use strict";

// Shows times in the user's time zone.
function showLocalTimes(root) {
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

// A second click sends nothing. Without scripts, the key of the form prevents a second transfer.
document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!form.matches("form.once")) return;
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "yes";
});

// A form may be sent again if the browser shows its page again after "back".
window.addEventListener("pageshow", () => {
    for (const form of document.querySelectorAll("form.once")) delete form.dataset.sent;
});

// "Back" and reload load this page with GET: the browser does not ask whether to send the form again.
history.replaceState(history.state, "");

function enableCopyButtons(root) {
    for (const button of root.querySelectorAll("[data-copy]")) {
        if (!navigator.clipboard) continue;
        button.hidden = false;
        button.addEventListener("click", async () => {
            await navigator.clipboard.writeText(document.querySelector(button.dataset.copy).textContent);
            button.textContent = button.dataset.done;
        });
    }
}

// Refreshes the balance after events of the wallet. Events within 100 ms cause one request; without a stream,
// HTMX sends a request every minute. A hidden page closes its stream: a browser has six connections for all tabs.
function followEvents(balance) {
    let timer = null;
    const refresh = () => {
        timer ??= setTimeout(() => {
            timer = null;
            htmx.trigger(balance, "wallet-event");
        }, 100);
    };
    let stream = null;
    const openStream = () => {
        stream?.close();
        if (document.hidden) return;
        stream = new EventSource(balance.dataset.events);
        stream.onopen = refresh;  // the balance may have changed before the stream was open
        stream.onmessage = refresh;
        stream.addEventListener("gap", refresh);
    };
    openStream();
    document.addEventListener("visibilitychange", openStream);
    window.addEventListener("pagehide", () => stream?.close());
    window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
}

// The days of a filter are the reader's own, unless the reader has named another time zone.
function fillInTimeZone() {
    const zone = document.querySelector("[name=zone]");
    if (zone && !zone.value) zone.value = new Intl.DateTimeFormat().resolvedOptions().timeZone ?? "";
}

document.addEventListener("DOMContentLoaded", () => {
    fillInTimeZone();
    document.querySelectorAll("[data-events]").forEach(followEvents);
    showLocalTimes(document);
    enableCopyButtons(document);
    document.querySelector("[aria-invalid=true]")?.focus();  // the first field with an error
});
document.addEventListener("htmx:afterSettle", () => showLocalTimes(document));
