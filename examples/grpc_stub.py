"""The generated stub and plain grpcio, nothing else of ours. Needs: pip install . (the base install)."""

import os

import grpc
from headgate.v1 import chat_pb2, chat_service_pb2_grpc, content_pb2

request = chat_pb2.ChatRequest(
    model=os.environ.get("MODEL", "smollm2-135m-instruct"),
    messages=[
        content_pb2.Message(
            role=content_pb2.ROLE_USER,
            parts=[content_pb2.Part(text="What is the capital of France?")],
        )
    ],
    temperature=0,
)
with grpc.insecure_channel(os.environ.get("HEADGATE_TARGET", "127.0.0.1:50051")) as channel:
    stub = chat_service_pb2_grpc.ChatServiceStub(channel)
    response = stub.ChatComplete(request, timeout=60)
print("".join(part.text for part in response.choices[0].message.parts))
