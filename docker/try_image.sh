#!/usr/bin/env bash
# Try a built image as its users run it: any uid, a read-only root, 512 MB of /tmp, no network, no HOME.
#
#   docker/try_image.sh IMAGE OUTPUT        OUTPUT: a folder that does not exist yet; what was made stays there
#
# ENGINE=podman for another engine than docker.
set -euo pipefail
IMAGE=$1
ENGINE=${ENGINE:-docker}
mkdir -p "$2"
OUTPUT=$(cd "$2" && pwd)
chmod a+rwx "$OUTPUT"

run() {  # OPTIONS... IMAGE WORDS...
    "$ENGINE" run --rm --network none --read-only --tmpfs /tmp:rw,size=512m -u 4242:4242 -v "$OUTPUT:/out" "$@"
}

inside() {  # COMMAND WORDS...: another command than ibma-app
    local command=$1
    shift
    run --entrypoint "$command" "$IMAGE" "$@"
}

expect() {  # WHAT GOT WANTED
    if [ "$2" != "$3" ]; then
        echo "FAILED: $1: $2, not $3"
        exit 1
    fi
    echo "ok: $1 ($2)"
}

megabytes=$(("$("$ENGINE" image inspect "$IMAGE" --format '{{.Size}}')" / 1000000))
expect "below 900 MB: $megabytes MB" $((megabytes < 900)) 1
expect "version" "$(run "$IMAGE" --version)" "ibma-app $(inside cat /version)"
expect "compilers and version control left in it" \
    "$(inside sh -c 'for name in cc gcc g++ clang make git pip; do command -v $name; done; true')" ""

# in one container, so that starting containers is not counted; the second run has everything in the page cache
took=$(inside sh -c 'for i in 1 2; do date +%s%N; ibma-app --help > /dev/null; done; date +%s%N' \
    | awk 'NR > 1 { last = $1 - before } { before = $1 } END { printf "%d", last / 1e6 }')
expect "--help within a second: $took ms" $((took < 1000)) 1

code=0
run "$IMAGE" /missing /out/none participant 2> /dev/null || code=$?
expect "exit code for a missing dataset" "$code" 66

inside ibma-demo /out/demo > /dev/null
no_home() {  # WORDS...: HOME is unset, and numba tells on stdout what it saves
    inside env -u HOME NUMBA_DEBUG_CACHE=1 ibma-app "$@"
}
no_home /out/demo/data/subjects /out/both participant > "$OUTPUT/numba.txt"
no_home /out/demo/data/subjects /out/both group --estimator reml --inference fdr tfce --permutations 100 >> "$OUTPUT/numba.txt"
expect "both levels, without HOME" \
    "$(find "$OUTPUT/both/group" -name '*corr-tfce_stat-log10p_statmap.nii.gz' | wc -l | tr -d ' ')" 1
expect "kernels loaded" $(($(grep -c 'data loaded' "$OUTPUT/numba.txt") > 0)) 1
expect "kernels compiled at run time" "$(grep -c 'data saved' "$OUTPUT/numba.txt" || true)" 0
inside env NUMBA_DEBUG_CACHE=1 IBMA_CPU_NAMES=generic ibma-app /out/demo/data/subjects /out/generic participant > "$OUTPUT/generic.txt"
expect "kernels for any processor, too" "$(grep -c 'data saved' "$OUTPUT/generic.txt" || true)" 0
