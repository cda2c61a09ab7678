# Rows of tab-separated row, key, value as a table, and as JSON in the file named by -v json; of two values of a key the last counts.
BEGIN { FS = "\t" }
{
    if (!($1 in seen)) { seen[$1] = 1; rows[++count] = $1 }
    if (!(($1, $2) in values)) keys[$1] = keys[$1] (keys[$1] ? "\t" : "") $2
    values[$1, $2] = $3
}
function text(s) { gsub(/\\/, "\\\\", s); gsub(/"/, "\\\"", s); return "\"" s "\"" }
function get(row, key) { return (row, key) in values ? values[row, key] : "" }
function number(v) { # three digits, thousands apart from nothing else
    if (v == "") return "-"
    if (v >= 1000) return sprintf("%.0f", v)
    if (v >= 100) return sprintf("%.1f", v)
    return sprintf("%.3g", v)
}
function name(row, part, n) {
    n = split(row, part, " ")
    if (part[1] == "step") return toupper(substr(part[2], 1, 1)) "/" substr(part[2], 2) ", batch " part[3] (n > 3 ? ", " part[4] : "")
    if (part[1] == "rest") return toupper(substr(part[2], 1, 1)) "/" substr(part[2], 2) ", " part[3] ": neither product nor attention"
    if (part[1] == "first") return toupper(substr(part[2], 1, 1)) "/" substr(part[2], 2) ", " part[3] ": first step after the start"
    if (part[1] == "largest") return toupper(substr(part[2], 1, 1)) "/" substr(part[2], 2) ": largest batch, norm_gelu"
    if (part[1] == "attention") return "attention, " part[2] " tokens x " part[3] ", " part[4]
    return row
}
function goal(row, g, r) {
    g = get(row, "goal"); r = get(row, "goal_ratio")
    if (g == "" && r == "") return "-"
    return (g == "" ? "" : (get(row, "less_is_better") ? "<= " : ">= ") number(g)) (g != "" && r != "" ? ", " : "") (r == "" ? "" : r " x")
}
function peer(row, what, part) { # a step has one peer, however often it is measured
    if (split(row, part, " ") > 3 && part[1] == "step") row = "step " part[2] " " part[3]
    return get(row, what)
}
function share(row, m, e) {
    m = get(row, "measured"); e = get(row, "estimate")
    if (m == "" || !(m > 0 && e > 0)) return "-"
    return sprintf("%.0f %%", 100 * (get(row, "less_is_better") ? e / m : m / e))
}
function met(row, m, g, r, p) {
    m = get(row, "measured"); g = get(row, "goal"); r = get(row, "goal_ratio"); p = peer(row, "peer")
    if (m == "" || (g == "" && r == "")) return "-"
    if (g != "" && (get(row, "less_is_better") ? m > g + 0 : m + 0 < g)) return "no"
    if (r != "" && p == "") return "no peer"
    return r != "" && m < r * p ? "no" : "yes"
}
END {
    if (get("machine", "rehearsal") ~ /^yes/) print "REHEARSAL on the emulated device: no figure says anything\n"
    n = split(keys["machine"], key, "\t")
    for (i = 1; i <= n; i++) printf "%-12s %s\n", key[i], get("machine", key[i])
    print ""
    for (i = 1; i <= count; i++)
        if (rows[i] ~ /^part /) printf "%-12s %s%s\n", substr(rows[i], 6), get(rows[i], "state") == "" ? "done" : get(rows[i], "state"), \
            get(rows[i], "seconds") == "" ? "" : " (" get(rows[i], "seconds") " s)"
    form = "%-44s %-13s %9s %9s %7s %14s %8s %9s %9s %6s %5s %4s  %s\n"
    printf "\n" form, "figure", "", "measured", "estimate", "of it", "goal", "met", "limit", "PyTorch", "ratio", "MHz", "W", ""
    for (i = 1; i <= count; i++) {
        row = rows[i]
        if (get(row, "unit") == "") continue
        m = get(row, "measured"); p = peer(row, "peer")
        printf form, name(row), get(row, "unit"), number(m), number(get(row, "estimate")), share(row), goal(row), met(row), \
            number(get(row, "bound")), number(p), (m != "" && p > 0 ? sprintf("%.2f", m / p) : "-"), \
            (get(row, "sm_MHz") == "" ? "-" : get(row, "sm_MHz")), (get(row, "watts") == "" ? "-" : sprintf("%.0f", get(row, "watts"))), \
            (get(row, "note") == "" ? peer(row, "peer_how") : get(row, "note"))
    }
    printf "\nestimate: on paper, from the graph; share: of it; limit: every operation at its bound (model/estimate.h)\n"
    printf "{" > json
    for (i = 1; i <= count; i++) {
        printf "%s\n %s: {", (i > 1 ? "," : ""), text(rows[i]) > json
        n = split(keys[rows[i]], key, "\t")
        for (k = 1; k <= n; k++) {
            v = get(rows[i], key[k])
            printf "%s%s: %s", (k > 1 ? ", " : ""), text(key[k]), (v ~ /^-?[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?$/ ? v : text(v)) > json
        }
        printf "}" > json
    }
    print "\n}" > json
}
