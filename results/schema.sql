-- Views over the tables of all open sessions. The tables themselves (sessions, trials, repetitions, samples, telemetry,
-- ops, outputs) are docs/results-format.md with the column `session` in front. Percentiles are computed here, on read;
-- none is stored. `socbench results sql QUERY` sees everything below.

-- One row a finished repetition: what its measured samples say. quantile_cont interpolates between the two nearest samples;
-- asked for a list of quantiles it goes through the samples once.
CREATE VIEW repetition_latency AS
SELECT
    session, trial, repetition, samples,
    quantiles[2] AS latency_p50_ns, quantiles[1] AS latency_p25_ns, quantiles[3] AS latency_p75_ns,
    total_ns, start_ns, end_ns
FROM (
    SELECT
        session, trial, repetition,
        count(*) AS samples,
        quantile_cont(latency_ns, [0.25, 0.50, 0.75]) AS quantiles,
        sum(latency_ns) AS total_ns,
        min(start_ns) AS start_ns,
        max(start_ns + latency_ns) AS end_ns
    FROM samples
    SEMI JOIN (SELECT session, trial, repetition FROM repetitions WHERE status = 'done') AS finished
        USING (session, trial, repetition)
    WHERE phase = 2
    GROUP BY ALL
);

-- One row a trial. The headline is the geometric mean of the repetitions' medians (docs/methodology.md); p90 and p99
-- are over all measured samples of its finished repetitions: of fewer than 300, p99 would be one of the three largest,
-- so it is null, and p90 with it.
CREATE VIEW trial_latency AS
SELECT
    session, trial, samples, latency_p50_ns,
    CASE WHEN samples >= 300 THEN quantiles[1] END AS latency_p90_ns,
    CASE WHEN samples >= 300 THEN quantiles[2] END AS latency_p99_ns
FROM (
    SELECT
        session, trial, sum(samples)::BIGINT AS samples,
        CASE WHEN min(latency_p50_ns) = max(latency_p50_ns) THEN min(latency_p50_ns)
             ELSE geomean(latency_p50_ns) END AS latency_p50_ns
    FROM repetition_latency
    GROUP BY ALL
)
JOIN (
    SELECT session, trial, quantile_cont(latency_ns, [0.90, 0.99]) AS quantiles
    FROM samples
    SEMI JOIN (SELECT session, trial, repetition FROM repetitions WHERE status = 'done') AS finished
        USING (session, trial, repetition)
    WHERE phase = 2
    GROUP BY ALL
) USING (session, trial);

-- Model, device and what really ran beside the latencies: the table that most questions start from.
CREATE VIEW results AS
SELECT
    trials.session, sessions.label, sessions.started, trials.trial, trials.device, trials.model, trials.variant,
    trials.runtime, ran.runtime_version, trials.delegate, ran.delegate_effective, ran.delegation, trials.precision,
    ran.precision_effective, trials.threads, trials.batch, trials.scenario, trials.environment, trials.status,
    latency.samples, latency.latency_p50_ns, latency.latency_p90_ns, latency.latency_p99_ns, ran.load_ns, ran.first_ns,
    ran.peak_memory_bytes
FROM trials
JOIN sessions USING (session)
LEFT JOIN trial_latency AS latency USING (session, trial)
LEFT JOIN (
    SELECT
        session, trial, min(runtime_version) AS runtime_version, min(delegate_effective) AS delegate_effective,
        min(delegation) AS delegation, min(precision_effective) AS precision_effective, median(load_ns) AS load_ns,
        median(first_ns) AS first_ns, max(peak_memory_bytes) AS peak_memory_bytes
    FROM repetitions
    WHERE status = 'done'
    GROUP BY ALL
) AS ran USING (session, trial);
