"""An engine as a shell script, which reports with curl: `sh -c SCRIPT engine ID DIRECTORY SECONDS WAY`.

It knows `SOCKET` and `PROJECT` from its environment. A call that the daemon dies under is made again by curl.
A result that is made again may be answered with 409: then it was taken the first time.
"""

from __future__ import annotations

from typing import Final

SCRIPT: Final = r"""
set -u
id=$1 directory=$2 seconds=$3 way=$4
restore=http://localhost/v2/$PROJECT/restores/$id
block=4096 files=0 bytes=0 errors=0

note() { echo "$(date +%s.%N) $*" >>"$directory/notes"; }

call() { curl -s --unix-socket "$SOCKET" --retry 30 --retry-all-errors --retry-delay 1 "$@"; }

tell() { # Returns once the daemon has taken the patch, or has ended the restore.
    until status=$(call -o /dev/null -w '%{http_code}' -X PATCH -H "X-Engine-Pid: $$" \
        -H 'Content-Type: application/json-patch+json' -d "$1" "$restore") &&
        { [ "$status" = 204 ] || [ "$status" = 409 ]; }; do sleep 0.2; done
    [ "$status" = 204 ]
}

member() { printf '{"op":"replace","path":"/%s","value":%s}' "$1" "$2"; }

counters() { echo "$(member bytes_restored $bytes),$(member files_restored $files)"; }

step() {
    head -c $block /dev/zero >"$directory/file$files"
    files=$((files + 1)) bytes=$((bytes + block))
    note done $files $bytes
    tell "[$(counters)]" && note told $files $bytes
    sleep 0.5
}

end() { # STATE REASON
    note end "$1" $errors
    tell "[$(member state "\"$1\""),$(counters),$(member errors "{\"count\":$errors,\"reason\":\"$2\"}")]"
    exit 0
}

stop() { note stop; end stopped stop_requested; }

trap 'exit 0' TERM
tell "[$(member state '"in_progress"')]"

if [ "$way" = "waits for the event, and stops" ]; then
    (while :; do step; done) &
    until call "$restore/events?wait=60" | grep -q restore_stop_request; do sleep 0.2; done
    kill -9 $! && wait $!
    files=$(ls "$directory" | grep -c file) bytes=$(cat "$directory"/file* | wc -c)
    note done $files $bytes
    stop
fi

until=$(($(date +%s) + ${seconds%.*}))
while [ "$(date +%s)" -lt $until ]; do
    step
    if [ "$way" = "errors on the way" ] && [ $((files % 10)) = 1 ]; then
        errors=$((errors + 1))
        tell "[$(member errors "{\"count\":$errors,\"list\":[{\"index\":1,\"path\":\"/lost/$files\",\
\"type\":\"file_or_folder_missing\",\"exception\":{\"code\":2}}]}")]"
    fi
    if [ "$way" = "stops when asked" ] && call "$restore" | grep -q '"state": "stop_requested"'; then stop; fi
done
case $way in
    "gives up") end failed disk_broken ;;
    "errors on the way") end completed_with_errors unable_to_process_some_files ;;
    *) end completed "" ;;
esac
"""
