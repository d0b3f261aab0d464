// What the words of the contract mean, for people.

export const CAUSES = {
  update: "update: the bar is still open",
  close: "close: the bar's time was over",
  late: "late: a trade came after the close",
  gap: "gap: an outage became known",
  healed: "healed: the vendor's klines took their place",
};

export const COMPLETENESS = {
  complete: "complete: the feed was healthy throughout",
  gap: "gap: an outage or a known loss overlaps",
  partial: "partial: the feed began or ended inside",
};

export const PROVENANCES = {
  trades: "trades",
  klines: "klines: the vendor's, after a gap",
  mixed: "mixed: trades and the vendor's klines",
};

export const SOURCES = {
  live: "LIVE data of Infoway",
  simulated: "SIMULATED data: no real prices",
  replay: "REPLAYED data of a recording",
};

export function timeOf(ms, withDate = false, withFraction = false) {
  const text = new Date(ms).toISOString();
  const time = text.slice(11, withFraction ? 23 : 19);
  return withDate ? `${text.slice(0, 10)} ${time}` : time;
}

export function ageOf(seconds) {
  if (!Number.isFinite(seconds) || seconds < 0) return "0 s";
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}
