"""What in an ONNX file, whoever made it, costs speed or exactness in the runtime it is meant for."""
