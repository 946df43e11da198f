// Runs in the browser each time Bokeh has lost the connection to the server: cb_data is Bokeh's event. recovery.py puts
// one line before this file: const set = {health, server, keep}, the health address, the identity of the server that
// gave out this page, and the milliseconds that a lost session lives. Bokeh makes all of it the body of a function.

const PATIENCE = 1000; // ms until the first question; Bokeh's own attempts have had half a minute by then
const PAUSE = 3000; // ms between questions to a server that does not answer
const MOST_TRIES = 3; // a server that answers but takes nobody back would keep the page waiting for ever

const now = Date.now();
// on the window, as this function begins anew with every attempt that fails
const mine = (window.pickcal_connection ??= {since: now, tries: 0, waiting: false});

let bar = document.getElementById("pickcal-connection");
if (bar == null) {
  bar = document.createElement("div");
  bar.id = "pickcal-connection";
  bar.setAttribute("role", "status"); // screen readers say it
  bar.style.cssText = "position:fixed;left:0;right:0;bottom:0;z-index:99999;padding:0.6rem 1rem;font:1rem sans-serif;"
    + "background:#7a1f00;color:#fff";
  document.body.append(bar);
}
bar.textContent = "The connection to pickcal is lost; trying again.";

// Once it is connected again, Bokeh 3.9 pulls the document, but drops its arrays (the buffers) and then fails on them.
// This does the same with the buffers. It is set once per connection, and lives as long as that.
const link = cb_data.connection.deref();
if (link != null && !link.pickcal_pulls) {
  link.pickcal_pulls = true;
  link._repull_session_doc = async (resolve, reject) => {
    try {
      const {doc_json, buffers} = await link._pull_doc_json();
      const shown = link.session.document;
      const fresh = shown.constructor.from_json(doc_json, [], buffers);
      const [roots, config] = [[...fresh.roots()], fresh.config]; // clear() below empties them
      const known = new Set(roots.map((root) => root.id));
      // other roots are those of a new visit: what is on the screen has no counterpart, so the page must load anew
      if (!shown.roots().every((root) => known.has(root.id))) throw new Error("the session is a new one");
      // without sync: the server must not hear that its own roots are taken away
      shown.clear({sync: false});
      fresh.clear({sync: false});
      shown.config = config;
      for (const root of roots) shown.add_root(root, {sync: false});
      resolve(link.session);
    } catch (error) {
      reject(error);
      location.reload();
    }
  };
}

// with a timeout Bokeh tries again by itself; two chains of questions would reload a page that is just coming back
if (cb_data.timeout != null || mine.waiting) return;
mine.waiting = true;

const ask = async () => {
  let answer = null;
  try {
    const response = await fetch(set.health, {cache: "no-store"});
    // a proxy answers for a server that is down, with an error
    if (response.ok) answer = await response.json();
  } catch {} // nobody there yet, or a proxy's page in place of JSON
  if (answer == null) {
    setTimeout(ask, PAUSE);
    return;
  }
  mine.waiting = false;
  mine.tries += 1;
  // a server that was started anew, or that has ended the session, cannot go on with what is on the screen
  const gone = answer.server !== set.server || Date.now() - mine.since > set.keep;
  if (gone || mine.tries > MOST_TRIES) location.reload();
  else cb_data.reconnect();
};
setTimeout(ask, PATIENCE);
