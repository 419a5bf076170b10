const SECONDS_OF = { s: 1, m: 60, h: 3600, d: 86_400 } as const;

/** What a duration in `agentid.yaml` looks like; also given to editors through the JSON Schema. */
export const DURATION_PATTERN = /^([1-9][0-9]{0,8})(s|m|h|d)$/;

/** Seconds of `300s`, `10m`, `24h`, `7d`; undefined for anything else. */
export function durationSeconds(text: string): number | undefined {
  const match = DURATION_PATTERN.exec(text);
  if (match === null) return undefined;
  return Number(match[1]) * SECONDS_OF[match[2] as keyof typeof SECONDS_OF];
}

/** How people write `seconds`: 600 → `10m`, 86400 → `24h`, 604800 → `7d`. */
export function formatDuration(seconds: number): string {
  for (const unit of ["d", "h", "m"] as const) {
    const least = unit === "d" ? 2 : 1;
    if (seconds >= least * SECONDS_OF[unit] && seconds % SECONDS_OF[unit] === 0)
      return `${seconds / SECONDS_OF[unit]}${unit}`;
  }
  return `${seconds}s`;
}
