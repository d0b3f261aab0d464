// What stands above everything: whose data it is, how old, and whether the stream stands still.

import { byId, make, mark, put } from "./dom.js";
import { ageOf, SOURCES, timeOf } from "./words.js";

const STILL_S = 10; // feeds that live say something each second

/** Draw the line on top; returns whether what is shown is of now. */
export function drawStatus(store, connection) {
  const status = store.status;
  const source = status?.source || "";
  const badge = byId("source");
  put(badge, SOURCES[source] || (source ? source : "waiting for data"));
  mark(badge, "source", source || "none");
  const age = status?.newest_ms ? store.age(status.newest_ms) : NaN;
  put(byId("age"), Number.isNaN(age) ? "no record yet" : `newest record ${ageOf(age)} ago`);
  mark(byId("age"), "old", age > STILL_S ? "yes" : "");
  drawFeeds(store);
  const losses = [
    status?.unreadable ? `${status.unreadable} records not readable` : "",
    status?.left_out ? `${status.left_out} records of symbols beyond the list` : "",
  ].filter(Boolean);
  byId("losses").hidden = !losses.length;
  put(byId("losses"), losses.join(", "));
  const alarm = alarmOf(status, age, connection);
  const line = byId("alarm");
  line.hidden = !alarm;
  put(line, alarm || "");
  mark(document.body, "still", alarm ? "yes" : "");
  return !alarm;
}

function alarmOf(status, age, connection) {
  if (!connection.connected) {
    const lost = (Date.now() - connection.lostAt) / 1000;
    if (!status && lost < 2) return "";
    return `NO CONNECTION to the page's server for ${ageOf(lost)}: what you see is old. Trying again.`;
  }
  if (status?.trouble) {
    return `NO DATA for ${ageOf(Math.max(status.trouble_s, age || 0))}: ${status.trouble}. Trying again.`;
  }
  if (age > STILL_S) return `STANDS STILL: no new record for ${ageOf(age)}.`;
  return "";
}

function drawFeeds(store) {
  const host = byId("feeds");
  const feeds = [...store.feeds.values()].toSorted((one, other) => (one.feed < other.feed ? -1 : 1));
  feeds.forEach((feed, index) => {
    const item = host.children[index] || host.appendChild(make("li"));
    put(item, feed.state === "healthy" ? feed.feed : `${feed.feed} ${feed.state}`);
    mark(item, "state", feed.state);
    const watermark = store.status?.watermarks[feed.feed];
    item.title = [
      `${feed.feed} (${feed.business}): ${feed.state}, ${feed.reason}, since ${timeOf(feed.ts_from, true)} UTC`,
      watermark ? `bars are published up to ${timeOf(watermark, true)} UTC` : "",
    ].filter(Boolean).join("\n");
  });
  while (host.children.length > feeds.length) host.lastChild.remove();
}
