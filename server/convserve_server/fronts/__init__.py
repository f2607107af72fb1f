"""Where calls come in and answers leave: HTTP/2 by grpcio, or by pygrpc-native."""
