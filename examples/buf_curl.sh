#!/usr/bin/env bash
# gRPC from the shell: the server describes itself by reflection, so no .proto file is needed here.
# Needs buf (https://buf.build/docs/cli); after `make dev` it is in .venv/bin.
set -euo pipefail

target="${HEADGATE_TARGET:-127.0.0.1:50051}"
model="${MODEL:-smollm2-135m-instruct}"

buf curl --protocol grpc --http2-prior-knowledge \
  --data "{\"model\": \"$model\", \"temperature\": 0, \"messages\": [
    {\"role\": \"ROLE_USER\", \"parts\": [{\"text\": \"What is the capital of France?\"}]}]}" \
  "http://$target/headgate.v1.ChatService/ChatComplete"
