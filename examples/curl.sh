#!/usr/bin/env bash
# One question by curl; then the same as a stream of events.
set -euo pipefail

url="${HEADGATE_REST_URL:-http://127.0.0.1:8080}/v1/chat/completions"
model="${MODEL:-smollm2-135m-instruct}"
question='"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0'

curl --fail-with-body -sS "$url" -H 'Content-Type: application/json' \
  -d "{\"model\": \"$model\", $question}"
echo
curl --fail-with-body -sSN "$url" -H 'Content-Type: application/json' \
  -d "{\"model\": \"$model\", $question, \"stream\": true}"
